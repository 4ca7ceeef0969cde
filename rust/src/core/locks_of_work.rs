//! Locks of this worker's commits and locked pops: released, handed over to the coordinator, or
//! late.

use crate::core::worker::Worker;
use crate::lane::lane;
use crate::threads::letters::{Mail, ToCoordinator, Unsettled};

impl Worker {
    /// Hands a lock over to the coordinator. A command may still be on its way on a lane that was
    /// lost, so the lock is kept until the instance has read it.
    pub(crate) fn leave_lock_to_coordinator(&self, token: u64, lost: Vec<(usize, u64)>) {
        self.shared.coordinator.post(ToCoordinator::Unsettled(Unsettled {
            token: Some(token),
            name: Vec::new(), // there are no records to delete
            first: lost[0].0,
            others: Vec::new(),
            lanes: lost
                .into_iter()
                .map(|(instance, serial)| (instance, lane::name(self.index, serial)))
                .collect(),
        }));
    }

    /// Ends a lock, or the wait for it.
    pub(crate) fn drop_lock(&mut self, token: u64, has_held: bool) {
        self.release_lock(token);
        if !has_held {
            // The thread that granted it may just have posted it to this worker.
            self.shared.doors[self.index].mailbox.post(Mail::Unlock(token));
        }
    }

    pub(crate) fn release_lock(&mut self, token: u64) {
        for lock in self.shared.release_lock(token, Some(self.index)) {
            self.lock(lock);
        }
        self.unlock(token);
    }

    /// Notes the instances that a lock waits for.
    pub(crate) fn note_unsettled(&mut self, token: u64) {
        for instance in self.locks.unsettled(token, &self.lanes) {
            self.note_late(instance);
        }
    }

    /// Notes that an instance has not answered in time.
    pub(crate) fn note_late(&mut self, instance: usize) {
        self.commits.note_late(instance, self.now + LATE_NANOSECONDS);
    }
}

/// Nanoseconds for which writes on a late instance's keys are handed over to the coordinator.
const LATE_NANOSECONDS: u64 = 1_000_000_000;
