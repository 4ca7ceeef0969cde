//! One worker's view of the locks.

use crate::lane::in_flight::Watermark;
use crate::lane::pool::Lanes;
use crate::tables::lock::{Fingerprint, Lock};
use crate::tables::lock_table::LockTable;
use std::collections::HashMap;
use std::sync::Arc;

/// The locks that apply to a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// Locks that were announced but are not in force yet.
    pub(crate) coming: Vec<Arc<Lock>>,
    held: Vec<Arc<Lock>>,
    /// How many locks each key has: exclusive ones, and ones against writers only.
    keys: HashMap<Fingerprint, (u32, u32)>,
    /// Locks with very many keys, which are searched one by one.
    large: Vec<Arc<Lock>>,
    pub(crate) everything: usize,
    /// The number of locks whose holder may write.
    pub(crate) writing: usize,
    /// Keys in doubt, and the instance that must be back.
    doubts: HashMap<Fingerprint, usize>,
    /// Locks in force here that still wait for commands in flight.
    pub(crate) settling: Vec<(Arc<Lock>, Vec<Watermark>)>,
    /// Clients that wait for a lock: place and generation.
    pub(crate) waiting: Vec<(usize, u32)>,
}

impl Locks {
    /// True while nothing is locked.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.held.is_empty()
    }

    /// True if locks come into force in the next turn.
    pub(crate) fn are_coming(&self) -> bool {
        !self.coming.is_empty()
    }

    /// True while a lock waits for commands in flight.
    pub(crate) fn are_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// The instances that still owe replies to commands that were in flight when the lock came.
    pub(crate) fn unsettled(&self, token: u64, lanes: &Lanes) -> Vec<usize> {
        let settling = self.settling.iter().filter(|(lock, _)| lock.token == token);
        let marks = settling.flat_map(|(_, marks)| marks);
        marks.filter_map(|mark| Some(lanes.get(mark.lane)?.instance)).collect()
    }

    /// True while a key may not be written, or not even read.
    #[inline]
    pub(crate) fn stops(&self, table: &LockTable, db: u32, key: &[u8], writes: bool) -> bool {
        !self.is_free()
            && (self.everything > 0 || self.is_locked(table.fingerprint(db, key), writes))
    }

    pub(crate) fn is_locked(&self, key: Fingerprint, writes: bool) -> bool {
        let held = self.keys.get(&key);
        held.is_some_and(|&(exclusive, shared)| exclusive > 0 || (writes && shared > 0))
            || self.large.iter().any(|lock| lock.stops(key, writes))
    }

    /// True if keys are in doubt.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.doubts.is_empty() || self.large.iter().any(|lock| lock.doubt.is_some())
    }

    /// The instance that must be back before the outcome for this key is known; without a key, for
    /// any key in doubt.
    pub(crate) fn doubt_of(&self, key: Option<Fingerprint>) -> Option<usize> {
        let small = match key {
            Some(key) => self.doubts.get(&key),
            None => self.doubts.values().next(),
        };
        let mut large = self.large.iter().filter(|lock| lock.doubt.is_some());
        let is_meant = |lock: &&Arc<Lock>| key.is_none_or(|key| lock.stops(key, true));
        small.copied().or_else(|| large.find(is_meant)?.doubt)
    }

    pub(crate) fn add(&mut self, lock: Arc<Lock>) {
        self.everything += usize::from(lock.want.everything);
        self.writing += usize::from(lock.writes);
        if lock.is_large {
            self.large.push(Arc::clone(&lock));
        }
        for &(key, exclusive) in lock.want.keys.iter().filter(|_| !lock.is_large) {
            let held = self.keys.entry(key).or_default();
            *(if exclusive { &mut held.0 } else { &mut held.1 }) += 1;
            if let Some(instance) = lock.doubt {
                self.doubts.insert(key, instance);
            }
        }
        self.held.push(lock);
    }

    pub(crate) fn remove(&mut self, token: u64) {
        self.coming.retain(|lock| lock.token != token);
        self.settling.retain(|(settling, _)| settling.token != token);
        let Some(at) = self.held.iter().position(|lock| lock.token == token) else {
            return;
        };
        let lock = self.held.swap_remove(at);
        self.everything -= usize::from(lock.want.everything);
        self.writing -= usize::from(lock.writes);
        if lock.is_large {
            self.large.retain(|large| large.token != token);
        }
        for &(key, exclusive) in lock.want.keys.iter().filter(|_| !lock.is_large) {
            if let Some(held) = self.keys.get_mut(&key) {
                *(if exclusive { &mut held.0 } else { &mut held.1 }) -= 1;
                if *held == (0, 0) {
                    self.keys.remove(&key);
                }
            }
            if lock.doubt.is_some() {
                self.doubts.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::lock::{Holder, Want};

    pub(crate) fn lock(token: u64, is_exclusive: bool) -> Arc<Lock> {
        let (keys, instances) = (vec![(1, false), (2, is_exclusive)], vec![0, 1]);
        let (everything, is_told, spares_doubts) = (false, true, false);
        let holder = Holder::Coordinator;
        let want = Want { keys, everything, instances, holder, is_told, spares_doubts };
        Arc::new(Lock::new(token, want, 1))
    }

    #[test]
    fn only_those_who_write_keep_others_from_looking_at_all_keys() {
        let mut locks = Locks::default();
        locks.add(lock(1, false));
        assert_eq!(locks.writing, 0);
        locks.add(lock(2, true));
        locks.add(lock(3, false));
        assert_eq!(locks.writing, 1);
        locks.remove(2);
        assert_eq!(locks.writing, 0);
        locks.add(Arc::new(lock(1, false).in_doubt(vec![(1, true)], 0)));
        assert_eq!(locks.writing, 1);
    }
}
