//! Commands that may wait for their keys, and need not: BLPOP of a queue with something in it, XREAD of
//! a stream with news, is done by its instance at once. Between MULTI and EXEC no server lets them
//! wait:
//!
//! ```text
//! lane: MULTI, the command, EXEC  ─► its reply, if it has one
//!                                 ─► nothing there: the coordinator waits (tables/blocking_keys.rs, blocking/commands.py)
//! ```
//! Of keys of several instances these are the first ones, as many as one instance has; if these have
//! nothing, see `commands/locked_pop.rs`. Only while nobody waits for one of its keys: whoever does comes first. Who
//! must go to the coordinator goes behind those that came before (`core/order.rs`).

use crate::base::begun::Begun;
use crate::base::step::Step;
use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::client::attempt::Attempt;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::send::Checkout;
use crate::core::worker::Worker;
use crate::lane::lane::Expect;
use crate::resp::encode::canonical;
use crate::resp::reply::{aggregate, is_error, is_null};
use crate::resp::request::Args;
use crate::routing::owner::{Owner, owner};
use crate::routing::parts::SplitCommand;
use crate::tables::lock::Fingerprint;
use crate::threads::shared::Shared;
use std::sync::Arc;

/// A longer command is left to the coordinator: it is kept until it is answered.
const LENGTH_MOST: usize = 16 * 1024;

/// What is newer than now depends on when that is asked: it is asked once, by the coordinator.
const NEWEST: &[u8] = b"$";

impl Worker {
    /// A command that may wait for its keys.
    pub(crate) fn route_blocking(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Step {
        let db = self.db(place);
        let table = &shared.lock_table;
        let names = key_specs::all(&row.keys, args).map(|at| table.fingerprint(db, args.get(at)));
        let names: Arc<[Fingerprint]> = names.collect();
        let is_waited_for = |at| shared.blocking_keys.has(db, args.get(at));
        if args.raw.len() > LENGTH_MOST
            || !self.may_run_here(place)
            || args.iter().any(|word| word == NEWEST)
            || key_specs::all(&row.keys, args).any(is_waited_for)
        {
            return self.go_and_wait(place, args, &names);
        }
        if key_specs::all(&row.keys, args).any(|at| self.stops(db, args.get(at), true)) {
            return self.wait_for_keys(place, row, args);
        }
        let home = owner(row, args, db, &shared.placement);
        let Some((instance, tried)) = beginning(row, args, db, shared, &home) else {
            return self.go_and_wait(place, args, &names);
        };
        if self.must_drain(place) {
            return Step::Blocked;
        }
        let is_of_group = row.traits.is_of_group;
        match self.check_out(place, instance) {
            Checkout::Lane(lane) => {
                let row = self.clients[place].last_row();
                let begun = Begun { raw: canonical(args), at: self.now };
                let attempt = Attempt {
                    begun,
                    row,
                    keys: Arc::clone(&names),
                    is_on_several: matches!(home, Owner::Several),
                    before: 2,
                    is_refused: false,
                };
                // Nothing more is taken from it: it may have to wait after all.
                self.clients[place].gate = Gate::Drain;
                self.clients[place].ahead = None; // what it once waited for
                self.append_block(place, lane, Owed::Attempt(Box::new(attempt)), &tried, 1);
                self.note_attempt(lane, names, is_of_group);
            }
            Checkout::Full(_) | Checkout::Down => return self.go_and_wait(place, args, &names),
        }
        Step::Done
    }

    /// To the coordinator, behind all that want one of these keys and have not yet to wait.
    fn go_and_wait(&mut self, place: usize, args: Args, names: &[Fingerprint]) -> Step {
        if !names.is_empty() && self.must_follow(place, names, false) {
            return Step::Blocked;
        }
        self.route_to_coordinator(place, args)
    }

    /// One of the replies to an attempt.
    pub(crate) fn attempted(&mut self, lane: usize, start: u32, length: u32, expect: Expect) {
        let place = expect.client as usize;
        let reply = self.lanes.received(lane, start, length);
        let Some(owed) = self.clients[place].owed_at(expect.sequence) else { return };
        let Owed::Attempt(attempt) = owed else { return };
        if attempt.before > 0 {
            attempt.before -= 1;
            attempt.is_refused |= is_error(reply);
            return;
        }
        let is_refused = attempt.is_refused || is_error(reply);
        let found = found(reply).filter(|_| !is_refused);
        let waiting = Owed::Waiting(attempt.row);
        let Owed::Attempt(attempt) = std::mem::replace(owed, waiting) else { return };
        if let Some(found) = found.and_then(|found| u32::try_from(found.len()).ok()) {
            self.counters.unwaited += 1;
            self.log_attempt(place, lane, &attempt, found as usize);
            self.deliver(lane, start + length - found, found, expect);
        } else if is_refused || !attempt.is_on_several {
            self.leave_waiting(expect, &attempt.begun.raw);
        } else {
            self.begin_pop(expect, *attempt);
        }
    }

    /// Its instance has seen it in a block, and of keys on several instances only the first.
    fn log_attempt(&self, place: usize, lane: usize, attempt: &Attempt, reply: usize) {
        let Some(instance) = self.lanes.get(lane).map(|lane| lane.instance) else { return };
        self.log_seen(place, &attempt.begun, reply, |worker, row, args| {
            let (db, mut owners) = (worker.db(place), Vec::new());
            match SplitCommand::new(row, args, db, &worker.shared.placement, &mut owners) {
                Some(whole) if attempt.is_on_several => Self::seen(instance, &whole.begin().1),
                _ => Self::seen(instance, &attempt.begun.raw),
            }
        });
    }
}

/// What can be tried, and where: the command, or the same for its first keys; `None` if only all of them
/// at once would do.
fn beginning(
    row: &Row,
    args: Args,
    db: u32,
    shared: &Shared,
    home: &Owner,
) -> Option<(usize, Vec<u8>)> {
    match home {
        Owner::One(instance) => Some((*instance, canonical(args))),
        Owner::Several if row.takes_first => {
            Some(SplitCommand::new(row, args, db, &shared.placement, &mut Vec::new())?.begin())
        }
        Owner::Several | Owner::Nobody => None,
    }
}

/// What EXEC of one command has found, if anything.
pub(crate) fn found(reply: &[u8]) -> Option<&[u8]> {
    aggregate(reply).and_then(|(_, count, rest)| (count == 1 && !is_null(rest)).then_some(rest))
}
