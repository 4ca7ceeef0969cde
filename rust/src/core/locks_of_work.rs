//! Locks that commits and searches of this worker hold: given back, left to the coordinator, or late.

use crate::core::worker::Worker;
use crate::lane::lane;
use crate::threads::letters::{Mail, ToCoordinator, Unsettled};

impl Worker {
    /// Nothing more comes of a lane on which something may still be on its way: the lock is kept until
    /// the instance has read it.
    pub(crate) fn leave_lock_to_coordinator(&self, token: u64, lost: Vec<(usize, u64)>) {
        self.shared.coordinator.post(ToCoordinator::Unsettled(Unsettled {
            token: Some(token),
            name: Vec::new(), // there are no records
            first: lost[0].0,
            others: Vec::new(),
            lanes: lost
                .into_iter()
                .map(|(instance, serial)| (instance, lane::name(self.index, serial)))
                .collect(),
        }));
    }

    /// Ends a lock, or the wait for one.
    pub(crate) fn drop_lock(&mut self, token: u64, has_held: bool) {
        self.release_lock(token);
        if !has_held {
            // Whoever granted it may just have posted it to us.
            self.shared.doors[self.index].mailbox.post(Mail::Unlock(token));
        }
    }

    pub(crate) fn release_lock(&mut self, token: u64) {
        for lock in self.shared.release_lock(token, Some(self.index)) {
            self.lock(lock);
        }
        self.unlock(token);
    }

    /// Notes which instances kept a lock waiting.
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

/// Nanoseconds for which writes with keys on an instance that was late are left to the coordinator.
const LATE_NANOSECONDS: u64 = 1_000_000_000;
