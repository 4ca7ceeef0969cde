//! Where a command goes: to the instance of its keys, to several, to all, to the coordinator.

use crate::begun::Begun;
use crate::client::{Gate, Owed};
use crate::client_info::ClientInfo;
use crate::command::{Route, Row};
use crate::encode::{canonical, push_args};
use crate::instance::InstanceState;
use crate::merge::Merging;
use crate::merge_kind::Merge;
use crate::number::push_u64;
use crate::owner::{Owner, has_special_word, owner};
use crate::queued::Queued;
use crate::reach::Reach;
use crate::request::{Args, push_array, push_bulk};
use crate::scan;
use crate::shared::{Shared, ToCoordinator};
use crate::step::Step;
use crate::worker::Worker;

impl Worker {
    /// Sends a command on its way, by its row.
    pub(crate) fn route(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) -> Step {
        match row.route {
            Route::Keys => self.route_to_owner(place, row, args, shared),
            Route::Split(merge) => self.route_to_owners(place, row, merge, args, shared),
            Route::All(merge) => self.route_to_all(place, merge, args),
            Route::Any => self.route_to_any(place, args),
            Route::Scan => self.route_scan(place, args),
            Route::Session(verb) => self.session(place, verb, args),
            Route::Pubsub(verb) => self.pubsub(place, verb, args),
            Route::Script => self.route_script(place, row, args, shared),
            Route::Coordinator if row.blocks => self.route_blocking(place, row, args, shared),
            Route::Coordinator => self.route_to_coordinator(place, args),
            Route::Refuse => {
                self.answer_error(place, &row.refusal);
                Step::Done
            }
        }
    }

    /// One instance has all keys, or the command is refused.
    fn route_to_owner(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) -> Step {
        if !row.special_words.is_empty() && has_special_word(row, args) {
            return if row.blocks {
                self.route_blocking(place, row, args, shared)
            } else {
                self.route_to_coordinator(place, args)
            };
        }
        let db = self.db(place);
        let owner = if row.only_key > 0 && row.only_key < args.len() {
            Owner::One(usize::from(shared.placement.instance(db, args.get(row.only_key))))
        } else {
            owner(row, args, db, &shared.placement)
        };
        match owner {
            Owner::One(instance) => {
                if row.writes && self.must_wait_for_writes(place, Some(instance)) {
                    return Step::Blocked;
                }
                self.route_to_instance(place, instance, args)
            }
            // No keys where the server expects some: any instance will say what is wrong.
            Owner::Nobody => self.route_to_any(place, args),
            Owner::Several => self.route_in_parts(place, row, args, shared),
        }
    }

    /// Sends a command as it is to one instance. The path of nearly every command: the lane is
    /// open and has room.
    pub(crate) fn route_to_instance(&mut self, place: usize, instance: usize, args: Args) -> Step {
        let client = &mut self.clients[place];
        let Some((lane, known)) = self.lanes.open_lane_mut(client.lane_set, instance) else {
            return self.route_to_closed(place, instance, args);
        };
        if known.is_full() {
            return self.wait_for_lane(place, lane);
        }
        let begin = known.out.len();
        push_args(&mut known.out, args);
        let length = known.out.len() - begin;
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        known.expect(place, client.generation, sequence, length, self.now_seconds);
        if !known.is_dirty {
            known.is_dirty = true;
            self.dirty_lanes.push(lane);
        }
        self.counters.lane_commands += 1;
        Step::Done
    }

    /// The same, when the lane must be opened first.
    fn route_to_closed(&mut self, place: usize, instance: usize, args: Args) -> Step {
        match self.reach(place, instance) {
            Reach::Lane(_) => self.route_to_instance(place, instance, args),
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    pub(crate) fn route_to_any(&mut self, place: usize, args: Args) -> Step {
        let instance = self.any_instance(place);
        self.route_to_instance(place, instance, args)
    }

    /// An instance that can be asked. Spread by client, and always the same for one client while
    /// all is well.
    pub(crate) fn any_instance(&self, place: usize) -> usize {
        let count = self.instances.len();
        let first = usize::try_from(self.clients[place].session.id).unwrap_or(0) % count;
        let is_ready = |index: &usize| matches!(self.instances[*index], InstanceState::Ready(_));
        (0..count).map(|step| (first + step) % count).find(is_ready).unwrap_or(first)
    }

    /// To every instance. Everything before it is answered first: it touches the whole keyspace.
    fn route_to_all(&mut self, place: usize, merge: Merge, args: Args) -> Step {
        if self.must_drain(place) {
            return Step::Blocked;
        }
        let everyone: Vec<usize> = (0..self.instances.len()).collect();
        let lanes = match self.reach_all(place, &everyone) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let merging = Merging::new(merge, lanes.len(), lanes.len(), Vec::new());
        let sequence = self.owe_merging(place, merging, args);
        for lane in lanes {
            self.append_part(place, lane, sequence, |out| push_args(out, args));
        }
        Step::Done
    }

    pub(crate) fn owe_merging(&mut self, place: usize, mut merging: Merging, args: Args) -> u32 {
        merging.begun = Some(Begun { raw: canonical(args), at: self.now });
        let client = &mut self.clients[place];
        client.owe(Owed::Merging(Box::new(merging), client.last_row()))
    }

    fn route_scan(&mut self, place: usize, args: Args) -> Step {
        let count = self.instances.len();
        let Some((instance, cursor)) = scan::decode(args.get(1), count) else {
            return self.route_to_coordinator(place, args); // the server says whether it is one
        };
        if count > 1 && (instance, cursor) == (0, 0) {
            return self.route_to_coordinator(place, args); // a few keys: all of them at once
        }
        match self.reach(place, instance) {
            Reach::Lane(lane) => {
                let row = self.clients[place].last_row();
                let owed = Owed::Scanning(u16::try_from(instance).unwrap_or(0), row);
                self.append(place, lane, owed, |out| {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, cursor);
                    push_array(out, args.len());
                    for (index, arg) in args.iter().enumerate() {
                        push_bulk(out, if index == 1 { &digits } else { arg });
                    }
                });
                Step::Done
            }
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    pub(crate) fn route_to_coordinator(&mut self, place: usize, args: Args) -> Step {
        if self.must_drain(place) {
            return Step::Blocked;
        }
        self.send_to_coordinator(place, args, None);
        Step::Done
    }

    /// Gives a command to the coordinator; nothing more is taken from this client until it answers.
    pub(crate) fn send_to_coordinator(&mut self, place: usize, args: Args, queued: Option<Queued>) {
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(ClientInfo { query_bytes: args.raw.len(), ..self.describe(place) }),
            args: args.iter().map(<[u8]>::to_vec).collect(),
            queued,
            token: self.clients[place].executing.as_ref().map(|executing| executing.token),
            is_question: false,
        };
        let client = &mut self.clients[place];
        client.owe(Owed::Waiting(client.last_row()));
        client.gate = Gate::Coordinator;
        client.is_known = true;
        let hung_up = client.hung_up;
        let row = self.shared.table.row(client.last_command);
        if row.blocks {
            let db = self.lanes.state(client.lane_set).db;
            self.shared.waited.coming(self.key(place), db, row, args);
        }
        self.shared.coordinator.post(letter);
        if hung_up {
            self.shared.coordinator.post(ToCoordinator::HungUp(self.key(place)));
        }
    }

    /// True, and the gate is shut, while earlier commands of this client are not answered.
    pub(crate) fn must_drain(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        if client.owed.is_empty() {
            return false;
        }
        client.gate = Gate::Drain;
        true
    }
}
