//! Commands that may block, tried without blocking: BLPOP of a list with elements or XREAD of a
//! stream with new entries is done by its instance at once. The command is sent between MULTI and
//! EXEC, where no server lets it block:
//!
//! ```text
//! lane: MULTI, the command, EXEC  ─► its reply, if there is one
//!                                 ─► nothing there: the coordinator waits
//!                                    (tables/blocking_keys.rs, blocking/commands.py)
//! ```
//! If the keys live on several instances, only the first keys, those on one instance, are tried; if
//! they are empty, see `commands/locked_pop.rs`. A command is tried only while no client waits for
//! one of its keys, because a waiting client comes first. A command that must go to the coordinator
//! goes after those that came before it (`core/order.rs`).

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

/// A longer command goes to the coordinator, because it is kept until it is answered.
const LENGTH_MOST: usize = 16 * 1024;

/// The newest entry depends on when it is asked for, so the coordinator asks for it, once.
const NEWEST: &[u8] = b"$";

impl Worker {
    /// Routes a command that may block.
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
                // Its next commands are not taken yet: it may have to wait after all.
                self.clients[place].gate = Gate::Drain;
                self.clients[place].ahead = None; // what it waited for before
                self.append_block(place, lane, Owed::Attempt(Box::new(attempt)), &tried, 1);
                self.note_attempt(lane, names, is_of_group);
            }
            Checkout::Full(_) | Checkout::Down => return self.go_and_wait(place, args, &names),
        }
        Step::Done
    }

    /// Sends the command to the coordinator, after all earlier commands on these keys that may yet
    /// wait.
    fn go_and_wait(&mut self, place: usize, args: Args, names: &[Fingerprint]) -> Step {
        if !names.is_empty() && self.must_follow(place, names, false) {
            return Step::Blocked;
        }
        self.route_to_coordinator(place, args)
    }

    /// Takes one of the replies to an attempt.
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

    /// The instance got it in a block and, of keys on several instances, only with the first ones.
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

/// What can be tried, and where: the command, or the same for its first keys; `None` if it needs
/// all of its keys at once.
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

/// What EXEC of one command has returned, if anything.
pub(crate) fn found(reply: &[u8]) -> Option<&[u8]> {
    aggregate(reply).and_then(|(_, count, rest)| (count == 1 && !is_null(rest)).then_some(rest))
}
