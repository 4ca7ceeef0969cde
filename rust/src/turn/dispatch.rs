//! Decides where a command goes: to its keys' instance, several, all, or the coordinator.

use crate::base::number::push_u64;
use crate::base::step::Step;
use crate::catalog::merge_kind::Merge;
use crate::catalog::table::{Route, Row};
use crate::client::owed::Owed;
use crate::core::send::Checkout;
use crate::core::worker::Worker;
use crate::resp::encode::push_args;
use crate::resp::request::{Args, push_array, push_bulk};
use crate::routing::merge::Merging;
use crate::routing::owner::{Owner, has_special_word, owner};
use crate::routing::scan_cursor;
use crate::threads::shared::Shared;

impl Worker {
    /// Routes a command by its row.
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

    /// Sends the command to the instance that has all its keys.
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
            // No keys where the server expects some: any instance will answer with the right error.
            Owner::Nobody => self.route_to_any(place, args),
            Owner::Several => self.route_in_parts(place, row, args, shared),
        }
    }

    /// Sends a command to every instance, after all earlier ones were answered, because it touches
    /// the whole keyspace.
    fn route_to_all(&mut self, place: usize, merge: Merge, args: Args) -> Step {
        if self.must_drain(place) {
            return Step::Blocked;
        }
        let everyone: Vec<usize> = (0..self.instances.len()).collect();
        let lanes = match self.check_out_all(place, &everyone) {
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

    fn route_scan(&mut self, place: usize, args: Args) -> Step {
        let count = self.instances.len();
        let Some((instance, cursor)) = scan_cursor::decode(args.get(1), count) else {
            return self.route_to_coordinator(place, args); // the server decides whether it is one
        };
        if count > 1 && (instance, cursor) == (0, 0) {
            return self.route_to_coordinator(place, args); // only a few keys: all of them at once
        }
        match self.check_out(place, instance) {
            Checkout::Lane(lane) => {
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
            Checkout::Full(lane) => self.wait_for_lane(place, lane),
            Checkout::Down => self.instance_down(place, instance),
        }
    }
}
