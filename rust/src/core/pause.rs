//! CLIENT PAUSE: commands wait here until the coordinator ends the pause.

use crate::catalog::table::Row;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::tables::pause::{ALL, WRITES};
use std::sync::atomic::Ordering::Acquire;

impl Worker {
    /// True, and the gate is shut, if this command must wait for the end of a pause. A client that
    /// has left does not wait.
    pub(crate) fn must_pause(&mut self, place: usize, row: &Row) -> bool {
        let client = &mut self.clients[place];
        let is_exec = row.is_exec();
        let in_block = client.multi.as_ref().is_some_and(|multi| multi.may_replicate);
        let may_replicate = row.may_replicate || is_exec && in_block;
        let pause = self.shared.settings.pause.load(Acquire);
        // Commands of a transaction belong to an EXEC that has begun before.
        if client.executing.is_some() || pause != ALL && !(pause == WRITES && may_replicate) {
            return false;
        }
        if client.hung_up {
            self.end_after_replies(place); // its command would wait, but the client has left
            return true;
        }
        client.gate = Gate::Pause;
        self.counters.clients_paused += 1;
        true
    }

    /// The pause has ended or changed: all paused clients try again.
    pub(crate) fn end_pause(&mut self) {
        let paused = self.clients.iter().filter(|(_, client)| client.gate == Gate::Pause);
        let places: Vec<usize> = paused.map(|(place, _)| place).collect();
        for place in places {
            self.open_gate(place);
        }
        self.counters.clients_paused = 0;
    }
}
