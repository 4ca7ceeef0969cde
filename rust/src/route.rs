//! Where a command goes: to the instance of its keys, to several, to all, to the coordinator.

use crate::client::{Gate, Owed};
use crate::command::{Route, Row};
use crate::events::{KIND_LANE, event_data};
use crate::forward::Taken;
use crate::instance::InstanceState;
use crate::keys::Span;
use crate::merge::{Merge, Merging};
use crate::net;
use crate::number::push_u64;
use crate::request::{Args, push_array, push_bulk, push_command};
use crate::scan;
use crate::shared::{Shared, ToCoordinator};
use crate::worker::Worker;
use rustix::event::epoll;

/// Where the keys of a command are.
enum Owner {
    /// It has none, as far as its syntax tells.
    Nobody,
    One(usize),
    Several,
}

/// A way to an instance.
enum Reach {
    Lane(usize),
    Full(usize),
    Down,
}

impl Worker {
    /// Sends a command on its way, by its row.
    pub(crate) fn route(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) -> Taken {
        match row.route {
            Route::Keys => self.route_to_owner(place, row, args, shared),
            Route::Split(merge) => self.route_to_owners(place, row, merge, args, shared),
            Route::All(merge) => self.route_to_all(place, merge, args),
            Route::Any => self.route_to_any(place, args),
            Route::Scan => self.route_scan(place, args),
            Route::Session(verb) => self.session(place, verb, args),
            Route::Coordinator => self.route_to_coordinator(place, args),
            Route::Refuse => {
                self.answer_error(place, &row.refusal);
                Taken::Yes
            }
        }
    }

    /// One instance has all keys, or the command is refused.
    fn route_to_owner(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) -> Taken {
        if !row.refused_words.is_empty() && has_refused_word(row, args) {
            self.answer_error(place, &row.refusal);
            return Taken::Yes;
        }
        let owner = if row.only_key > 0 && row.only_key < args.len() {
            Owner::One(usize::from(shared.slot_map.instance(args.get(row.only_key))))
        } else {
            owner(row, args, shared)
        };
        match owner {
            Owner::One(instance) => self.route_to_instance(place, instance, args),
            // No keys where the server expects some: any instance will say what is wrong.
            Owner::Nobody => self.route_to_any(place, args),
            Owner::Several => {
                let name = String::from_utf8_lossy(&row.name).to_ascii_uppercase();
                self.refuse(
                    place,
                    &format!(
                        "ERR threadis: {name} with keys of several instances is not supported \
                         yet; give the keys a common {{hash tag}}"
                    ),
                );
                Taken::Yes
            }
        }
    }

    /// Sends a command as it is to one instance. The path of nearly every command: the lane is
    /// open and has room.
    fn route_to_instance(&mut self, place: usize, instance: usize, args: Args) -> Taken {
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
        let sequence = client.owe(Owed::Waiting);
        known.expect(place, client.generation, sequence, length, self.now_seconds);
        if !known.is_dirty {
            known.is_dirty = true;
            self.dirty_lanes.push(lane);
        }
        self.counters.lane_commands += 1;
        Taken::Yes
    }

    /// The same, when the lane must be opened first.
    fn route_to_closed(&mut self, place: usize, instance: usize, args: Args) -> Taken {
        match self.reach(place, instance) {
            Reach::Lane(_) => self.route_to_instance(place, instance, args),
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    fn route_to_any(&mut self, place: usize, args: Args) -> Taken {
        let count = self.instances.len();
        // Spread by client, and always the same for one client while all is well.
        let first = usize::try_from(self.clients[place].session.id).unwrap_or(0) % count;
        let is_ready = |index: &usize| matches!(self.instances[*index], InstanceState::Ready(_));
        let instance = (0..count).map(|step| (first + step) % count).find(is_ready);
        self.route_to_instance(place, instance.unwrap_or(first), args)
    }

    /// To every instance. Everything before it is answered first: it touches the whole keyspace.
    fn route_to_all(&mut self, place: usize, merge: Merge, args: Args) -> Taken {
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        let everyone: Vec<usize> = (0..self.instances.len()).collect();
        let lanes = match self.reach_all(place, &everyone) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let merging = Merging::new(merge, lanes.len(), lanes.len(), Vec::new());
        let sequence = self.clients[place].owe(Owed::Merging(Box::new(merging)));
        for lane in lanes {
            self.append_part(place, lane, sequence, |out| push_args(out, args));
        }
        Taken::Yes
    }

    /// One command to each instance that has some of the keys.
    fn route_to_owners(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        shared: &Shared,
    ) -> Taken {
        let Some(span) = row.keys.first().and_then(|spec| spec.span(args)) else {
            return self.route_to_any(place, args);
        };
        let end = span.last + span.step;
        if end > args.len() {
            return self.route_to_any(place, args); // a value is missing: any instance will say so
        }
        let mut owners = std::mem::take(&mut self.owners);
        owners.clear();
        owners.extend(span.indices().map(|index| shared.slot_map.instance(args.get(index))));
        let taken = if owners.iter().all(|&owner| owner == owners[0]) {
            self.route_to_instance(place, usize::from(owners[0]), args)
        } else if (end..args.len()).any(|index| is_word(&row.refused_words, args.get(index))) {
            self.answer_error(place, &row.refusal);
            Taken::Yes
        } else {
            self.split(place, row, merge, args, span, &owners)
        };
        self.owners = owners;
        taken
    }

    fn split(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        span: Span,
        owners: &[u16],
    ) -> Taken {
        let mut counts = vec![0usize; self.instances.len()];
        for &owner in owners {
            counts[usize::from(owner)] += 1;
        }
        let involved: Vec<usize> = (0..counts.len()).filter(|&index| counts[index] > 0).collect();
        let lanes = match self.reach_all(place, &involved) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let order = if merge == Merge::Keyed { owners.to_vec() } else { Vec::new() };
        let merging = Merging::new(merge, counts.len(), lanes.len(), order);
        let sequence = self.clients[place].owe(Owed::Merging(Box::new(merging)));

        let mut lane_of = vec![usize::MAX; counts.len()];
        let mut begins = vec![0usize; counts.len()];
        let suffix = span.last + span.step..args.len();
        let number_at = row.keys.first().and_then(|spec| spec.number_at(args));
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            lane_of[instance] = lane;
            let Some(lane) = self.lanes.get_mut(lane) else { continue };
            begins[instance] = lane.out.len();
            push_array(&mut lane.out, span.first + counts[instance] * span.step + suffix.len());
            for index in 0..span.first {
                if Some(index) == number_at {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, counts[instance] as u64);
                    push_bulk(&mut lane.out, &digits);
                } else {
                    push_bulk(&mut lane.out, args.get(index));
                }
            }
        }
        for (key, &owner) in span.indices().zip(owners) {
            let Some(lane) = self.lanes.get_mut(lane_of[usize::from(owner)]) else { continue };
            for index in key..key + span.step {
                push_bulk(&mut lane.out, args.get(index));
            }
        }
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            let begin = begins[instance];
            let Some(known) = self.lanes.get_mut(lane) else { continue };
            for index in suffix.clone() {
                push_bulk(&mut known.out, args.get(index));
            }
            let length = known.out.len() - begin;
            self.expect(place, lane, sequence, length);
        }
        Taken::Yes
    }

    fn route_scan(&mut self, place: usize, args: Args) -> Taken {
        let count = self.instances.len();
        let Some((instance, cursor)) = scan::decode(args.get(1), count) else {
            self.refuse(place, "ERR invalid cursor");
            return Taken::Yes;
        };
        match self.reach(place, instance) {
            Reach::Lane(lane) => {
                let owed = Owed::Scanning(u16::try_from(instance).unwrap_or(0));
                self.append(place, lane, owed, |out| {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, cursor);
                    push_array(out, args.len());
                    for (index, arg) in args.iter().enumerate() {
                        push_bulk(out, if index == 1 { &digits } else { arg });
                    }
                });
                Taken::Yes
            }
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    fn route_to_coordinator(&mut self, place: usize, args: Args) -> Taken {
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(self.describe(place)),
            args: args.iter().map(<[u8]>::to_vec).collect(),
        };
        let client = &mut self.clients[place];
        client.owe(Owed::Waiting);
        client.gate = Gate::Coordinator;
        self.shared.coordinator.post(letter);
        Taken::Yes
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

    /// The lanes to several instances, or what to do because one cannot be had. Nothing is sent
    /// unless all can be.
    fn reach_all(&mut self, place: usize, instances: &[usize]) -> Result<Vec<usize>, Taken> {
        let mut lanes = Vec::with_capacity(instances.len());
        for &instance in instances {
            match self.reach(place, instance) {
                Reach::Lane(lane) => lanes.push(lane),
                Reach::Full(lane) => return Err(self.wait_for_lane(place, lane)),
                Reach::Down => return Err(self.instance_down(place, instance)),
            }
        }
        Ok(lanes)
    }

    /// The lane for a client's commands to an instance; opened if there is none.
    fn reach(&mut self, place: usize, instance: usize) -> Reach {
        let set = self.clients[place].lane_set;
        if let Some(lane) = self.lanes.open_lane(set, instance) {
            let is_full = self.lanes.get(lane).is_some_and(crate::lane::Lane::is_full);
            return if is_full { Reach::Full(lane) } else { Reach::Lane(lane) };
        }
        let InstanceState::Ready(socket) = &self.instances[instance] else {
            return Reach::Down;
        };
        let password = &self.shared.instance_password;
        let Ok(lane) = self.lanes.open(set, instance, socket, password, self.now_seconds) else {
            return Reach::Down;
        };
        let watched = self.lanes.get(lane).is_some_and(|known| {
            epoll::add(&self.epoll, &known.fd, event_data(KIND_LANE, lane), net::READ).is_ok()
        });
        if watched {
            Reach::Lane(lane)
        } else {
            self.lanes.close(lane);
            Reach::Down
        }
    }

    fn wait_for_lane(&mut self, place: usize, lane: usize) -> Taken {
        let client = &mut self.clients[place];
        client.gate = Gate::Lane;
        let waiter = (u32::try_from(place).expect("descriptors fit"), client.generation);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.waiting.push(waiter);
        }
        Taken::NotYet
    }

    fn instance_down(&mut self, place: usize, instance: usize) -> Taken {
        let refusal = self.instances[instance].refusal(instance);
        self.refuse(place, &refusal);
        Taken::Yes
    }

    /// Appends a command of a client to a lane, and its reply to what the client is owed.
    fn append(&mut self, place: usize, lane: usize, owed: Owed, write: impl FnOnce(&mut Vec<u8>)) {
        let sequence = self.clients[place].owe(owed);
        self.append_part(place, lane, sequence, write);
    }

    fn append_part(
        &mut self,
        place: usize,
        lane: usize,
        sequence: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(known) = self.lanes.get_mut(lane) else {
            return;
        };
        let begin = known.out.len();
        write(&mut known.out);
        let length = known.out.len() - begin;
        self.expect(place, lane, sequence, length);
    }

    fn expect(&mut self, place: usize, lane: usize, sequence: u32, length: usize) {
        let generation = self.clients[place].generation;
        let now = self.now_seconds;
        if let Some(known) = self.lanes.get_mut(lane) {
            known.expect(place, generation, sequence, length, now);
            self.counters.lane_commands += 1;
            self.mark_lane_dirty(lane);
        }
    }
}

/// A command as an instance may see it: our own framing if it came inline, else as it came,
/// which is canonical because the parser takes nothing else.
fn push_args(out: &mut Vec<u8>, args: Args) {
    if args.is_inline() {
        push_command(out, args.iter());
    } else {
        out.extend_from_slice(args.raw);
    }
}

fn owner(row: &Row, args: Args, shared: &Shared) -> Owner {
    let mut first = None;
    for span in row.keys.iter().filter_map(|spec| spec.span(args)) {
        for index in span.indices() {
            let instance = usize::from(shared.slot_map.instance(args.get(index)));
            if *first.get_or_insert(instance) != instance {
                return Owner::Several;
            }
        }
    }
    first.map_or(Owner::Nobody, Owner::One)
}

fn has_refused_word(row: &Row, args: Args) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| row.words_until.is_empty() || !arg.eq_ignore_ascii_case(&row.words_until))
        .any(|arg| is_word(&row.refused_words, arg))
}

fn is_word(words: &[Vec<u8>], arg: &[u8]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(arg))
}
