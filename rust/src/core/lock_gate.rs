//! Key locks as one worker sees them: the keys that its clients must wait for.
//!
//! The table (`tables/lock_table.rs`) grants locks in order of arrival, and posts each to every
//! worker:
//!
//! ```text
//! Mail::Lock   ─► clients that already waited go first ─► the lock holds here
//!              ─► all in flight to its instances is answered ─► its holder is notified: Locked
//! Mail::Unlock ─► the lock is gone, the clients that wait for it are woken
//! ```
//! A command of a client that uses no lock costs one check of an empty table. No client starves: a
//! client that waited for one lock passes before the next lock holds.

use crate::base::step::Step;
use crate::catalog::table::{Route, Row};
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::lane::in_flight::Watermark;
use crate::lane::instance;
use crate::resp::request::Args;
use crate::tables::lock::Lock;
use std::sync::Arc;

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
                    || crate::catalog::key_specs::all(&row.keys, args)
                        .any(|index| self.stops(db, args.get(index), row.writes))
            }
            // It would see half of a write that is under way.
            Route::All(_) => row.writes || self.locks.writing > 0,
            Route::Scan | Route::Any => self.locks.everything > 0,
            Route::Session(_)
            | Route::Pubsub(_)
            | Route::Script
            | Route::Coordinator
            | Route::Refuse => false,
        }
    }

    /// The instance that must come back before a command on a locked key can run; `None` if the
    /// wait is short.
    pub(crate) fn doubt_of(&self, place: usize, row: &Row, args: Args) -> Option<usize> {
        if matches!(row.route, Route::All(_)) {
            return self.locks.doubt_of(None);
        }
        let db = self.db(place);
        let doubt = |at| self.doubt_of_key(db, args.get(at), row.writes);
        crate::catalog::key_specs::all(&row.keys, args).find_map(doubt)
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

    /// Lets a command wait for a locked key. If the key is in doubt, or a script runs too long, the
    /// wait may never end, so the command is refused.
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

    /// Notes a lock; it will hold once this turn's clients were read.
    pub(crate) fn lock(&mut self, lock: Arc<Lock>) {
        self.locks.coming.push(lock);
    }

    /// Removes a lock; the clients that waited for it try again this turn.
    pub(crate) fn unlock(&mut self, token: u64) {
        self.locks.remove(token);
        self.wake_those_behind_locks();
    }

    /// Marks a lock as in doubt: clients no longer wait for its keys.
    pub(crate) fn doubt(&mut self, lock: Arc<Lock>) {
        self.locks.remove(lock.token);
        self.locks.add(lock);
        self.wake_those_behind_locks();
    }

    /// Lets the clients that wait for locks try again this turn.
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

    /// Puts the locks that arrived this turn in force, and notes what is in flight.
    pub(crate) fn begin_locks(&mut self) {
        for lock in std::mem::take(&mut self.locks.coming) {
            let lanes = lock.want.instances.iter().flat_map(|&index| self.lanes.of_instance(index));
            let marks =
                lanes.filter_map(|place| Watermark::of(place, self.lanes.get(place)?)).collect();
            self.locks.settling.push((Arc::clone(&lock), marks));
            self.locks.add(lock);
            self.read_paused_lanes();
        }
    }

    /// Reports the locks before which everything was answered: they hold.
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
