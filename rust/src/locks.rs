//! Key locks, as one worker sees them: which keys its clients must wait for.
//!
//! The table (`lock_table.rs`) decides who holds what, in order of arrival; every worker is told:
//!
//! ```text
//! Mail::Lock   ─► clients that were waiting go first ─► the lock holds here
//!              ─► what was in flight to its instances is answered ─► its holder may hear: Locked
//! Mail::Unlock ─► the lock is gone, its waiters are woken
//! ```
//! So a lock costs those who do not use it one look at an empty table, and nobody starves: whoever
//! waited for one lock passes before the next one holds.

use crate::client::Gate;
use crate::command::{Route, Row};
use crate::following::Mark;
use crate::instance;
use crate::lanes::Lanes;
use crate::lock::{Fingerprint, Lock};
use crate::lock_table::LockTable;
use crate::request::Args;
use crate::step::Step;
use crate::worker::Worker;
use std::collections::HashMap;
use std::sync::Arc;

/// The locks that hold for a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// Told, but not yet in force.
    coming: Vec<Arc<Lock>>,
    held: Vec<Arc<Lock>>,
    /// How often each key is locked: for everyone, against writers only.
    keys: HashMap<Fingerprint, (u32, u32)>,
    /// Those with very many keys, which are looked for there.
    large: Vec<Arc<Lock>>,
    everything: usize,
    /// Those whose holder may write.
    writing: usize,
    /// Keys in doubt, and the instance that must be back.
    doubts: HashMap<Fingerprint, usize>,
    /// Locks that hold here, but something is still in flight.
    settling: Vec<(Arc<Lock>, Vec<Mark>)>,
    /// Clients behind a lock: place and generation.
    waiting: Vec<(usize, u32)>,
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

    /// True while a lock waits for what is in flight.
    pub(crate) fn are_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// The instances that have not yet answered what was in flight when a lock came.
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

    fn is_locked(&self, key: Fingerprint, writes: bool) -> bool {
        let held = self.keys.get(&key);
        held.is_some_and(|&(exclusive, shared)| exclusive > 0 || (writes && shared > 0))
            || self.large.iter().any(|lock| lock.stops(key, writes))
    }

    /// True if keys are in doubt.
    fn has_doubts(&self) -> bool {
        !self.doubts.is_empty() || self.large.iter().any(|lock| lock.doubt.is_some())
    }

    /// The instance that must be back before it is known what becomes of a key; of any, if none is
    /// named.
    fn doubt_of(&self, key: Option<Fingerprint>) -> Option<usize> {
        let small = match key {
            Some(key) => self.doubts.get(&key),
            None => self.doubts.values().next(),
        };
        let mut large = self.large.iter().filter(|lock| lock.doubt.is_some());
        let is_meant = |lock: &&Arc<Lock>| key.is_none_or(|key| lock.stops(key, true));
        small.copied().or_else(|| large.find(is_meant)?.doubt)
    }

    fn add(&mut self, lock: Arc<Lock>) {
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

    fn remove(&mut self, token: u64) {
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

impl Worker {
    /// True while a key of this command is locked.
    #[inline]
    pub(crate) fn is_locked(&self, place: usize, row: &Row, args: Args) -> bool {
        !self.locks.is_free() && self.names_a_locked_key(place, row, args)
    }

    #[cold]
    fn names_a_locked_key(&self, place: usize, row: &Row, args: Args) -> bool {
        let db = self.db(place);
        match row.route {
            Route::Keys | Route::Split(_) => {
                self.locks.everything > 0
                    || crate::keys::all(&row.keys, args)
                        .any(|index| self.stops(db, args.get(index), row.writes))
            }
            // It would see the half of what someone is writing.
            Route::All(_) => row.writes || self.locks.writing > 0,
            Route::Scan | Route::Any => self.locks.everything > 0,
            Route::Session(_)
            | Route::Pubsub(_)
            | Route::Script
            | Route::Coordinator
            | Route::Refuse => false,
        }
    }

    /// The instance that must be back before a command can run that names a locked key; none if it
    /// need not wait for long.
    fn doubt_of(&self, place: usize, row: &Row, args: Args) -> Option<usize> {
        if matches!(row.route, Route::All(_)) {
            return self.locks.doubt_of(None);
        }
        let db = self.db(place);
        let doubt = |at| self.doubt_of_key(db, args.get(at), row.writes);
        crate::keys::all(&row.keys, args).find_map(doubt)
    }

    /// The same for one key.
    pub(crate) fn doubt_of_key(&self, db: u32, key: &[u8], writes: bool) -> Option<usize> {
        if !self.locks.has_doubts() {
            return None;
        }
        let key = self.shared.lock_table.fingerprint(db, key);
        let doubt = self.locks.doubt_of(Some(key));
        doubt.filter(|_| self.locks.is_locked(key, writes))
    }

    /// A locked key is waited for, unless it is in doubt; but if a script runs for too long, that may
    /// be for ever.
    #[cold]
    pub(crate) fn wait_for_keys(&mut self, place: usize, row: &Row, args: Args) -> Step {
        if let Some(instance) = self.doubt_of(place, row, args) {
            self.refuse(place, &instance::in_doubt(instance));
            return Step::Done;
        }
        if self.shared.settings.busy().is_some() {
            self.refuse(place, &self.shared.settings.busy_words());
            return Step::Done;
        }
        self.wait_for_unlock(place);
        Step::Blocked
    }

    /// True while this key is locked.
    pub(crate) fn is_key_locked(&self, place: usize, key: &[u8], writes: bool) -> bool {
        self.stops(self.db(place), key, writes)
    }

    /// The same in a database.
    pub(crate) fn stops(&self, db: u32, key: &[u8], writes: bool) -> bool {
        self.locks.stops(&self.shared.lock_table, db, key, writes)
    }

    /// The same for the keys of a transaction.
    pub(crate) fn transaction_must_wait(
        &mut self,
        place: usize,
        keys: &[(u32, Vec<u8>, bool)],
    ) -> bool {
        let is_everything = self.locks.everything > 0;
        (is_everything || keys.iter().any(|(db, key, writes)| self.stops(*db, key, *writes)))
            && self.wait_for_unlock(place)
    }

    pub(crate) fn wait_for_unlock(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        client.gate = Gate::Lock;
        self.locks.waiting.push((place, client.generation));
        true
    }

    /// A lock that will hold once this turn's clients were read.
    pub(crate) fn lock(&mut self, lock: Arc<Lock>) {
        self.locks.coming.push(lock);
    }

    /// Forgets a lock; whoever waited tries again this turn.
    pub(crate) fn unlock(&mut self, token: u64) {
        self.locks.remove(token);
        self.wake_those_behind_locks();
    }

    /// Nobody waits any more for the keys that a lock has.
    pub(crate) fn doubt(&mut self, lock: Arc<Lock>) {
        self.locks.remove(lock.token);
        self.locks.add(lock);
        self.wake_those_behind_locks();
    }

    /// Whoever waits for a lock tries again this turn.
    pub(crate) fn wake_those_behind_locks(&mut self) {
        for (place, generation) in std::mem::take(&mut self.locks.waiting) {
            let client = self.clients.get(place);
            if client
                .is_some_and(|known| known.generation == generation && known.gate == Gate::Lock)
            {
                self.open_gate(place);
            }
        }
    }

    /// Puts the locks that came this turn in force, and notes what is in flight.
    pub(crate) fn begin_locks(&mut self) {
        for lock in std::mem::take(&mut self.locks.coming) {
            let lanes = lock.want.instances.iter().flat_map(|&index| self.lanes.of_instance(index));
            let marks = lanes.filter_map(|place| Mark::of(place, self.lanes.get(place)?)).collect();
            self.locks.settling.push((Arc::clone(&lock), marks));
            self.locks.add(lock);
            self.read_paused_lanes();
        }
    }

    /// Says of locks before which everything has been answered that they hold.
    pub(crate) fn settle_locks(&mut self) {
        if self.locks.settling.is_empty() {
            return;
        }
        let lanes = &self.lanes;
        let (index, shared, commits) = (self.index, &self.shared, &mut self.commits);
        self.locks.settling.retain_mut(|(lock, marks)| {
            marks.retain(|mark| mark.is_open(lanes));
            if marks.is_empty() && shared.lock_holds_here(lock, index) {
                commits.locked(lock.token);
            }
            !marks.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Holder, Want};

    fn lock(token: u64, is_exclusive: bool) -> Arc<Lock> {
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
