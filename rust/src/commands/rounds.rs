//! Rounds: a client that publishes or writes waits until all workers have read what came before.

use crate::client::client::Client;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::threads::letters::Mail;
use crate::work::rounds::{Publisher, Round};
use std::sync::atomic::Ordering::SeqCst;

impl Worker {
    /// True, and the gate is shut, until all workers have read what was sent before this client's
    /// command. One round serves all that was read of the client at once.
    pub(crate) fn must_let_others_read(&mut self, place: usize) -> bool {
        if !self.shared.has_others(self.index) {
            return false;
        }
        let client = &mut self.clients[place];
        let read = client.session.input_bytes;
        if client.session.read_by_all == read || client.executing.is_some() {
            return false;
        }
        client.gate = Gate::Round;
        let generation = client.generation;
        self.rounds.asking.push(Publisher { place, generation, read });
        true
    }

    /// Once clients were read: begins a round for the clients that need one.
    pub(crate) fn ask_for_round(&mut self) {
        if !self.rounds.asking.is_empty() {
            let publishers = std::mem::take(&mut self.rounds.asking);
            self.begin_round(publishers, false);
        }
    }

    fn begin_round(&mut self, publishers: Vec<Publisher>, is_second: bool) {
        let handed = self.shared.rounds.handed.load(SeqCst);
        let number = self.shared.ask_for_round(self.index);
        // What this worker's clients sent earlier was read earlier, unless other workers ask, too.
        if number == self.rounds.noticed + 1 {
            self.rounds.noticed = number;
        } else {
            self.shared.doors[self.index].mailbox.post(Mail::Round);
        }
        self.rounds.waiting.push_back(Round { number, handed, publishers, is_second });
    }

    /// When a turn ends: it has read all there was.
    #[inline]
    pub(crate) fn end_rounds(&mut self) {
        if self.rounds.noticed != self.rounds.ended {
            self.rounds.ended = self.rounds.noticed;
            self.shared.end_rounds(self.index, self.rounds.ended);
        }
    }

    /// A client that still waits for the other workers.
    pub(crate) fn waits_at_round(&mut self, place: usize, generation: u32) -> Option<&mut Client> {
        let client = self.clients.get_mut(place)?;
        let is_it = (client.generation, client.gate) == (generation, Gate::Round);
        (is_it && client.closing == Closing::No).then_some(client)
    }

    /// Lets the clients go on whose rounds are over.
    pub(crate) fn go_on_after_rounds(&mut self) {
        while let Some(round) = self.rounds.waiting.front()
            && self.shared.rounds.is_over(round.number, &self.shared.doors)
            && let Some(round) = self.rounds.waiting.pop_front()
        {
            if !round.is_second && self.shared.rounds.handed.load(SeqCst) != round.handed {
                self.begin_round(round.publishers, true);
                continue;
            }
            for Publisher { place, generation, read } in round.publishers {
                if let Some(client) = self.waits_at_round(place, generation) {
                    client.session.read_by_all = read;
                    self.open_gate(place);
                }
            }
        }
    }
}
