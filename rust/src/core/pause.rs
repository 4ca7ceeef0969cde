//! CLIENT PAUSE: clients whose commands wait here until the coordinator says that they may go on.

use crate::catalog::table::Row;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::tables::pause::{ALL, WRITES};
use std::sync::atomic::Ordering::Acquire;

impl Worker {
    /// True, and the gate is shut, if this command must wait for the end of a pause; whoever has left
    /// does not.
    pub(crate) fn must_pause(&mut self, place: usize, row: &Row) -> bool {
        let client = &mut self.clients[place];
        let is_exec = row.is_exec();
        let in_block = client.multi.as_ref().is_some_and(|multi| multi.may_replicate);
        let may_replicate = row.may_replicate || is_exec && in_block;
        let pause = self.shared.settings.pause.load(Acquire);
        // What EXEC runs belongs to an EXEC that has begun.
        if client.executing.is_some() || pause != ALL && !(pause == WRITES && may_replicate) {
            return false;
        }
        if client.hung_up {
            self.end_after_replies(place); // its command would wait, and it has left
            return true;
        }
        client.gate = Gate::Pause;
        self.counters.clients_paused += 1;
        true
    }

    /// Everyone who waits tries again: the pause is over, or another one.
    pub(crate) fn end_pause(&mut self) {
        let paused = self.clients.iter().filter(|(_, client)| client.gate == Gate::Pause);
        let places: Vec<usize> = paused.map(|(place, _)| place).collect();
        for place in places {
            self.open_gate(place);
        }
        self.counters.clients_paused = 0;
    }
}
