//! The owed replies of a broken lane: the clients that wait for them get an error.

use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::lane::instance;
use crate::lane::lane::Expect;
use crate::resp::reply::push_error;

impl Worker {
    /// Answers the clients that wait for lanes that have broken.
    #[cold]
    pub(crate) fn hand_out_losses(&mut self) {
        while let Some(place) = self.lost.pop() {
            self.forget_overdue(place);
            self.fail_owed(place);
            self.lost_for_commits(place);
            self.lost_for_pops(place);
        }
    }

    /// Answers each client that waits for this lane with an error: it tells whether the command was
    /// sent.
    pub(crate) fn fail_owed(&mut self, lane: usize) {
        let Some(known) = self.lanes.get_mut(lane) else {
            return;
        };
        let instance = known.instance;
        let busy = known.busy.take();
        let expects = std::mem::take(&mut known.expects);
        let sent: Vec<(Expect, bool)> =
            expects.into_iter().map(|expect| (expect, known.was_sent(&expect))).collect();
        for (expect, was_sent) in sent {
            let place = expect.client as usize;
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            if client.generation != expect.generation {
                continue;
            }
            let mut error = busy.clone().unwrap_or_default();
            if error.is_empty() {
                push_error(&mut error, instance::lost(instance, was_sent).as_bytes());
            }
            match client.owed_at(expect.sequence) {
                // Each reply of a block would come here; the first one stands for all.
                Some(owed) if owed.comes_whole() => {
                    let row = owed.row();
                    self.tally.failed(row as usize, &error);
                    client.hold(expect.sequence, error);
                }
                Some(Owed::Held(_)) => {}
                None => continue, // it was answered already
                Some(Owed::Merging(merging, row)) => {
                    let before = merging.size();
                    let mut whole = Vec::new();
                    if !merging.add(instance, &error, &mut whole) {
                        client.held += error.len();
                        continue;
                    }
                    self.tally.failed(*row as usize, &whole);
                    client.held -= before;
                    client.hold(expect.sequence, whole);
                }
                // Half of the reply is written: no continuation of it would be right.
                _ => {
                    self.end_client(place);
                    continue;
                }
            }
            client.settle(&self.lanes.received);
            if client.gate == Gate::Drain && client.owed.is_empty() {
                self.open_gate(place);
            }
            self.mark_dirty(place);
        }
    }
}
