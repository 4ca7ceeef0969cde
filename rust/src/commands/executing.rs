//! EXEC that the worker runs command by command, as if the commands came now, under a lock.
//!
//! The coordinator decides which run here (`transactions/commands.py`), and sends the replies of
//! those that it has run itself.

use crate::base::client_key::ClientKey;
use crate::client::executing::{Executing, Known};
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::resp::request::{push_array, push_command};
use crate::threads::letters::ToCoordinator;

impl Worker {
    /// Puts the commands of a transaction in front of what else the client has sent; `more` others
    /// come later.
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

    /// True once all commands of a transaction are answered. The coordinator is notified, also of
    /// those that it wanted to run first.
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
        if let Some(reply_mode) = &mut client.reply_mode {
            reply_mode.end_exec(next);
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
