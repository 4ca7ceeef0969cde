//! Commands that may wait for their keys, and need not: BLPOP of a queue with something in it, XREAD of
//! a stream with news, is done by its instance at once. Between MULTI and EXEC no server lets them
//! wait:
//!
//! ```text
//! lane: MULTI, the command, EXEC  ─► its reply, if it has one
//!                                 ─► nothing there: the coordinator waits (waited.rs, blocking.py)
//! ```
//! Only while nobody waits for one of its keys: whoever does comes first. Who must go to the coordinator
//! goes behind those of this worker that are still trying the same key: they came before.

use crate::client::{Client, Gate, Owed};
use crate::command::Row;
use crate::forward::Taken;
use crate::keys;
use crate::lane::Expect;
use crate::lock_table::Fingerprint;
use crate::multi::split;
use crate::reach::Reach;
use crate::reply::{aggregate, is_error, is_null};
use crate::request::{Args, Cut, Request};
use crate::route::{Owner, canonical, owner};
use crate::shared::Shared;
use crate::worker::Worker;

/// A longer command is left to the coordinator: it is kept until it is answered.
const LENGTH_MOST: usize = 16 * 1024;
/// What is newer than now depends on when that is asked: it is asked once, by the coordinator.
const NEWEST: &[u8] = b"$";

/// A command on its way that may have to wait.
#[derive(Debug)]
pub struct Attempt {
    /// The command.
    command: Vec<u8>,
    /// Its row.
    pub row: u32,
    /// Its keys.
    keys: Vec<Fingerprint>,
    /// Replies that come before the one of EXEC.
    before: usize,
    /// The instance has not queued it.
    is_refused: bool,
}

impl Worker {
    /// A command that may wait for its keys.
    pub(crate) fn route_blocking(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Taken {
        let db = self.db(place);
        let table = &shared.lock_table;
        let names = keys::all(&row.keys, args).map(|at| table.fingerprint(db, args.get(at)));
        let names: Vec<Fingerprint> = names.collect();
        let Owner::One(instance) = owner(row, args, db, shared) else {
            return self.go_and_wait(place, args, &names);
        };
        let is_free = |at| {
            let key = args.get(at);
            !shared.waited.has(db, key) && !self.stops(db, key, true)
        };
        if args.raw.len() > LENGTH_MOST
            || !self.may_run_here(place)
            || args.iter().any(|word| word == NEWEST)
            || !keys::all(&row.keys, args).all(is_free)
        {
            return self.go_and_wait(place, args, &names);
        }
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        match self.reach(place, instance) {
            Reach::Lane(lane) => self.send_attempt(place, lane, args, names),
            Reach::Full(_) | Reach::Down => return self.go_and_wait(place, args, &names),
        }
        Taken::Yes
    }

    /// To the coordinator, behind all that are still trying one of these keys.
    fn go_and_wait(&mut self, place: usize, args: Args, names: &[Fingerprint]) -> Taken {
        let is_ahead = |expect: &Expect| {
            let client = self.clients.get(expect.client as usize);
            let client = client.filter(|client| client.generation == expect.generation);
            let at = |client: &Client| expect.sequence.wrapping_sub(client.front) as usize;
            let owed = client.and_then(|client| client.owed.get(at(client)));
            matches!(owed, Some(Owed::Trying(attempt))
                if attempt.keys.iter().any(|key| names.contains(key)))
        };
        let mut lanes = self.lanes.open.iter();
        let ahead = lanes.find(|(_, lane)| lane.expects.iter().any(is_ahead));
        match ahead.map(|(lane, _)| lane) {
            Some(lane) => self.wait_for_lane(place, lane),
            None => self.route_to_coordinator(place, args),
        }
    }

    fn send_attempt(&mut self, place: usize, lane: usize, args: Args, keys: Vec<Fingerprint>) {
        let command = canonical(args);
        let client = &mut self.clients[place];
        // Nothing more is taken from it: it may have to wait after all.
        client.gate = Gate::Drain;
        let row = client.last_row();
        let attempt = Attempt { command: command.clone(), row, keys, before: 2, is_refused: false };
        self.append_block(place, lane, Owed::Trying(Box::new(attempt)), &command, 1);
    }

    /// One of the replies to an attempt.
    pub(crate) fn attempted(&mut self, lane: usize, start: u32, length: u32, expect: Expect) {
        let place = expect.client as usize;
        let reply = self.lanes.received(lane, start, length);
        let Some(owed) = self.clients[place].owed_at(expect.sequence) else { return };
        let Owed::Trying(attempt) = owed else { return };
        if attempt.before > 0 {
            attempt.before -= 1;
            attempt.is_refused |= is_error(reply);
            return;
        }
        let whole = aggregate(reply).filter(|_| !attempt.is_refused && !is_error(reply));
        let found =
            whole.and_then(|(_, count, rest)| (count == 1 && !is_null(rest)).then_some(rest));
        let (row, command) = (attempt.row, std::mem::take(&mut attempt.command));
        *owed = Owed::Waiting(row);
        if let Some(found) = found.and_then(|found| u32::try_from(found.len()).ok()) {
            self.counters.unwaited += 1;
            return self.deliver(lane, start + length - found, found, expect);
        }
        self.leave_waiting(expect, &command);
    }

    /// The coordinator has it wait.
    fn leave_waiting(&mut self, expect: Expect, command: &[u8]) {
        let Some(place) = self.give_back(expect) else { return };
        let row = self.shared.table.row(self.clients[place].last_command);
        let mut request = Request::default();
        if let Ok(Cut::Complete(_)) = request.cut(command, true) {
            self.shared.waited.coming(self.db(place), row, request.args(command));
        }
        let args = split(command, 1).pop().unwrap_or_default();
        self.give_to_coordinator(place, command.len(), args, None);
    }
}
