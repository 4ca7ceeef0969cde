//! EXEC that the worker runs command by command, as if they came now, while nobody else may.
//!
//! The coordinator says which (`transactions/commands.py`), and what those have answered that it has run.

use crate::client::{Gate, Owed};
use crate::client_key::ClientKey;
use crate::command::Found;
use crate::reply::is_error;
use crate::request::{Args, push_array, push_command};
use crate::shared::{Shared, ToCoordinator};
use crate::step::Step;
use crate::worker::Worker;
use std::collections::VecDeque;

/// The words of each command of a transaction.
pub type Commands = Vec<Vec<Vec<u8>>>;
/// The reply of each command of a transaction, if it has run already; fewer, if no more have.
pub type Known = Vec<Option<Vec<u8>>>;

/// A transaction that the worker runs command by command.
#[derive(Debug)]
pub struct Executing {
    /// Commands still to be taken.
    pub left: usize,
    /// The coordinator is to do something once these are answered, before others come.
    has_more: bool,
    /// The place of the next in the transaction.
    next: usize,
    /// The lock it runs under.
    pub token: u64,
    /// The replies to those of them that have run.
    known: VecDeque<Option<Vec<u8>>>,
    /// Microseconds that each of these took.
    pub(crate) took: u64,
    /// Bytes of EXEC's reply, up to here: so servers measure the replies in it.
    pub(crate) replied: usize,
}

impl Worker {
    /// Puts the commands of a transaction, of which so many `more` come later, before what else the
    /// client has sent.
    pub(crate) fn run_queued(
        &mut self,
        key: ClientKey,
        commands: &[Vec<Vec<u8>>],
        more: usize,
        (known, took): (Known, u64),
        token: u64,
        caching: bool,
    ) {
        let Some(client) = self.clients.get_mut(key.place) else {
            return;
        };
        let has_begun = client.executing.is_some();
        if client.generation != key.generation
            || !has_begun && !matches!(client.owed.front(), Some(Owed::Waiting(_)))
        {
            return;
        }
        if !has_begun {
            self.count_answered(key.place, b"");
        }
        let client = &mut self.clients[key.place];
        // From here on nothing is pushed: it would come into the middle of EXEC's reply.
        let mut header = Vec::new();
        if !has_begun {
            push_array(&mut header, commands.len() + more);
        }
        let (left, has_more) = (commands.len(), more > 0);
        let before = client.executing.as_ref();
        let (next, replied) = before.map_or((0, header.len()), |one| (one.next, one.replied));
        let known = known.into();
        let executing = Executing { left, has_more, next, token, known, took, replied };
        client.executing = Some(Box::new(executing));
        if !has_begun {
            client.hold(client.front, header);
            client.settle(&self.lanes.received);
        }
        let mut rx = Vec::new();
        for command in commands {
            push_command(&mut rx, command.iter().map(Vec::as_slice));
        }
        client.rx.put_before(rx);
        client.is_watching = false;
        client.set_caching(caching);
        self.open_gate(key.place);
        self.mark_dirty(key.place);
    }

    /// Takes a command of a transaction, or answers it if it has run.
    pub(crate) fn take_queued(&mut self, place: usize, args: Args, shared: &Shared) -> Step {
        let executing = self.clients[place].executing.as_mut();
        let reply = executing.and_then(|one| one.known.front_mut()).and_then(Option::take);
        let taken = match reply {
            Some(reply) => self.answer_queued(place, args, &reply, shared),
            None => self.take(place, args, shared),
        };
        if taken == Step::Done
            && let Some(executing) = &mut self.clients[place].executing
        {
            executing.left -= 1;
            executing.next += 1;
            executing.known.pop_front();
        }
        taken
    }

    fn answer_queued(&mut self, place: usize, args: Args, reply: &[u8], shared: &Shared) -> Step {
        let sub = (args.len() > 1).then(|| args.get(1));
        if let Found::Row(found) = shared.table.find(args.get(0), sub) {
            self.clients[place].last_command = found;
            self.tally.called(found);
            if is_error(reply) {
                self.tally.failed(found, reply);
            }
            if self.is_monitored() {
                self.show(place, shared.table.row(found), args);
                let at = self.clients[place].executing.as_ref().map_or(0, |one| one.next);
                self.show_script_lines(place, at);
            }
            self.log_run(place, (shared.table.row(found), args), reply.len());
        }
        self.answer(place, reply);
        Step::Done
    }

    /// True once everything of a transaction is answered. The coordinator hears of it, also of what it
    /// has wanted first.
    pub(crate) fn has_executed(&mut self, place: usize) -> bool {
        let executing = self.clients[place].executing.as_ref();
        let Some(has_more) = executing.filter(|one| one.left == 0).map(|one| one.has_more) else {
            return false;
        };
        if self.must_drain(place) {
            return false;
        }
        if has_more {
            self.clients[place].gate = Gate::Coordinator;
            self.shared.coordinator.post(ToCoordinator::Ran(self.key(place)));
            return false;
        }
        self.clients[place].executing = None;
        let client = &mut self.clients[place];
        let next = client.next_sequence();
        if let Some(quiet) = &mut client.quiet {
            quiet.end_exec(next);
        }
        client.set_caching(false);
        self.end_as_told(place);
        self.show_kept(place, false);
        self.clients[place].release_pushes();
        self.mark_dirty(place);
        self.shared.coordinator.post(ToCoordinator::Ran(self.key(place)));
        true
    }
}
