//! Command and error counts for INFO. Each command of a client counts once, no matter how many
//! commands to instances it took; the proxy's own commands to instances do not count.
//!
//! A command that ran is a *call*, even if it *failed*; one that was refused before it ran is
//! *rejected*. As in the servers, the error that was answered decides which of them it is.

use crate::base::step::Step;
use crate::catalog::table::{Route, Row};
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::resp::reply::is_error;
use crate::work::tally::has_run;

impl Worker {
    /// Takes a command through `run`, and counts it by its result. Commands of the coordinator are
    /// counted when they are answered.
    pub(crate) fn counted(
        &mut self,
        place: usize,
        (found, row): (usize, &Row),
        run: impl FnOnce(&mut Self) -> Step,
    ) -> Step {
        let before = self.tally.error_replies;
        let taken = run(self);
        if taken == Step::Blocked || self.waits_for_coordinator(place) {
            return taken;
        }
        if self.tally.error_replies == before {
            self.tally.called(found);
        } else {
            self.count_error(place, found, row);
        }
        taken
    }

    fn waits_for_coordinator(&self, place: usize) -> bool {
        self.clients[place].gate == Gate::Coordinator
    }

    #[cold]
    fn count_error(&mut self, place: usize, found: usize, row: &Row) {
        if self.tally.was_rejection || row.route == Route::Refuse {
            self.tally.rejected(found);
            self.clients[place].session.not_run += 1;
        } else if let Some(count) = self.tally.counts.get_mut(found) {
            count.calls += 1;
            count.failed += 1;
        }
    }

    /// Counts a command that the coordinator has run.
    pub(crate) fn count_answered(&mut self, place: usize, reply: &[u8]) {
        let client = &mut self.clients[place];
        let Some(&Owed::Waiting(row)) = client.owed.front() else { return };
        let queued = std::mem::take(&mut client.session.queued_rows);
        self.tally.called(row as usize);
        if is_error(reply) {
            self.tally.failed(row as usize, reply);
        } else {
            if has_run(reply) {
                client.session.has_run(queued.len());
            }
            self.tally.executed(&queued, reply);
        }
    }
}
