//! The lock table of the process: which lock holds which keys, and which ones wait.
//!
//! A lock names all its keys at once and is granted in order of arrival, so there is neither
//! deadlock nor starvation. Once it is granted, every worker holds back commands on those keys
//! (`core/lock_gate.rs`), and confirms the lock when no command in flight could bypass it. From
//! then on the holder has the keys to itself. Keys are known by fingerprints: in a collision two
//! keys wait for each other, which does no harm.
//!
//! ```text
//! small lock   stands in one line for each of its keys
//! large lock   stands in none: it is compared with all others, and follows those in conflict
//! ```
//! So a command with a million keys holds the table up for no longer than one with ten.

use crate::base::count::count_down;
use crate::tables::lock::{Fingerprint, Lock, Mode, Want, in_order};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

/// A lock of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) lock: Arc<Lock>,
    /// The number of keys for which it waits its turn, and of locks that it follows because one of
    /// both is large.
    behind: usize,
    /// The locks that wait for this one because one of both is large.
    followers: Vec<u64>,
}

/// What a lock wants of a key.
#[derive(Debug)]
struct Place {
    mode: Mode,
    has_turn: bool,
}

/// The locks that want a key, in order of arrival.
///
/// The first has its turn, and so have those after it with a compatible mode, up to the first
/// without. When a lock leaves, the cost is proportional to the locks that get their turn.
#[derive(Debug, Default)]
struct Line {
    /// By token; later requests have higher ones.
    places: BTreeMap<u64, Place>,
}

impl Line {
    /// Joins at the end; true if the lock has its turn at once.
    fn join(&mut self, token: u64, mode: Mode) -> bool {
        let last = self.places.last_key_value();
        let has_turn = last.is_none_or(|(_, last)| last.has_turn && mode.goes_with(last.mode));
        self.places.insert(token, Place { mode, has_turn });
        has_turn
    }

    /// Joins before all others; adds the locks that lose their turn to `pushed`.
    fn push_in(&mut self, token: u64, mode: Mode, pushed: &mut Vec<u64>) {
        for (&other, place) in &mut self.places {
            if place.has_turn && !mode.goes_with(place.mode) {
                place.has_turn = false;
                pushed.push(other);
            }
        }
        self.places.insert(token, Place { mode, has_turn: true });
    }

    /// Leaves the line; adds the locks that get their turn to `found`.
    fn leave(&mut self, token: u64, found: &mut Vec<u64>) {
        let Some(left) = self.places.remove(&token) else { return };
        let Some(first) = self.places.values().next().map(|place| place.mode) else { return };
        if left.mode.goes_with(first) {
            return; // locks of a compatible mode had their turn before
        }
        for (index, (&other, place)) in self.places.iter_mut().enumerate() {
            if index > 0 && !first.goes_with(place.mode) {
                break;
            }
            if !place.has_turn {
                place.has_turn = true;
                found.push(other);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    last_token: u64,
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// The locks not granted yet.
    pub(crate) waiting: BTreeSet<u64>,
    /// The locks on everything, held or not.
    everything: BTreeSet<u64>,
    /// The locks whose keys are in doubt.
    doubts: BTreeSet<u64>,
    lines: HashMap<Fingerprint, Line>,
    /// The large locks, which are in no line.
    large: BTreeSet<u64>,
}

impl Inner {
    /// Adds a lock whose keys are in order. Returns its token, and the lock if it is granted at
    /// once.
    pub(crate) fn ask(&mut self, want: Want, workers: usize) -> (u64, Option<Arc<Lock>>) {
        self.last_token += 1;
        let token = self.last_token;
        let lock = Arc::new(Lock::new(token, want, workers));
        let mut behind = self.follow(&lock);
        if lock.is_large {
            self.large.insert(token);
        } else {
            for &(key, is_exclusive) in &lock.want.keys {
                let line = self.lines.entry(key).or_default();
                behind += usize::from(!line.join(token, lock.want.mode(is_exclusive)));
            }
        }
        if lock.want.everything {
            self.everything.insert(token);
        }
        self.entries.insert(token, Entry { lock, behind, followers: Vec::new() });
        self.waiting.insert(token);
        (token, self.begin_if_free(token))
    }

    /// Lets a new lock follow the older ones that it conflicts with outside of lines. Returns their
    /// number.
    fn follow(&mut self, lock: &Lock) -> usize {
        let mut followed = 0;
        let mut follow = |entry: &mut Entry| {
            if lock.conflicts(&entry.lock) {
                entry.followers.push(lock.token);
                followed += 1;
            }
        };
        if lock.is_large {
            self.entries.values_mut().for_each(follow);
        } else {
            for token in &self.large {
                self.entries.get_mut(token).into_iter().for_each(&mut follow);
            }
        }
        followed
    }

    /// Releases a lock, or cancels the wait for one. Returns the locks that are granted now.
    pub(crate) fn release(&mut self, token: u64) -> Vec<Arc<Lock>> {
        let Some(entry) = self.entries.remove(&token) else { return Vec::new() };
        self.waiting.remove(&token);
        self.everything.remove(&token);
        self.doubts.remove(&token);
        let mut free = Vec::new();
        if !self.large.remove(&token) {
            for &(key, _) in &entry.lock.want.keys {
                self.leave(token, key, &mut free);
            }
        }
        self.go_on(entry.followers, &mut free);
        if entry.lock.want.everything {
            free = self.waiting.iter().copied().collect();
        } else if !self.everything.is_empty() {
            free.extend(self.waiting.first());
        }
        free.into_iter().filter_map(|other| self.begin_if_free(other)).collect()
    }

    /// A lock no longer wants a key; adds the locks that get their turn there.
    fn leave(&mut self, token: u64, key: Fingerprint, free: &mut Vec<u64>) {
        let before = free.len();
        if let Some(line) = self.lines.get_mut(&key) {
            line.leave(token, free);
            if line.places.is_empty() {
                self.lines.remove(&key);
            }
        }
        let gone_on = free.split_off(before);
        self.go_on(gone_on, free);
    }

    /// Each of these locks waits for one thing less.
    fn go_on(&mut self, others: Vec<u64>, free: &mut Vec<u64>) {
        for other in others {
            if let Some(entry) = self.entries.get_mut(&other) {
                count_down(&mut entry.behind);
                free.push(other);
            }
        }
    }

    /// Reduces a held lock to these keys in doubt. Returns it, and the locks that are granted now.
    pub(crate) fn doubt(
        &mut self,
        token: u64,
        mut keys: Vec<(Fingerprint, bool)>,
        instance: usize,
    ) -> Option<(Arc<Lock>, Vec<Arc<Lock>>)> {
        in_order(&mut keys);
        let entry = self.entries.get(&token)?;
        let (known, is_large) = (Arc::clone(&entry.lock), entry.lock.is_large);
        let mut pushed = Vec::new();
        let was_everything = self.everything.remove(&token);
        if was_everything {
            for &(key, is_exclusive) in &keys {
                let mode = known.want.mode(is_exclusive);
                self.lines.entry(key).or_default().push_in(token, mode, &mut pushed);
            }
        }
        let lock = Arc::new(known.in_doubt(keys, instance));
        if was_everything {
            pushed.extend(self.large.iter().filter(|&&other| self.conflict(&lock, other)));
        }
        // A lock that follows because of a key that is kept still does.
        let entry = self.entries.get_mut(&token)?;
        let followers = std::mem::take(&mut entry.followers);
        entry.lock = Arc::clone(&lock);
        self.doubts.insert(token);
        let (kept, gone_on) = followers.into_iter().partition(|&other| self.conflict(&lock, other));
        let mut free = Vec::new();
        self.go_on(gone_on, &mut free);
        self.entries.get_mut(&token)?.followers = kept;
        for other in pushed {
            self.entries.get_mut(&other)?.behind += 1;
            if self.large.contains(&other) {
                self.entries.get_mut(&token)?.followers.push(other);
            }
        }
        let is_kept = |key| lock.want.keys.binary_search_by_key(&key, |&(key, _)| key).is_ok();
        for &(key, _) in known.want.keys.iter().filter(|(key, _)| !is_large && !is_kept(*key)) {
            self.leave(token, key, &mut free);
        }
        if was_everything {
            free = self.waiting.iter().copied().collect();
        } else {
            free.extend(self.everything.first());
        }
        Some((lock, free.into_iter().filter_map(|other| self.begin_if_free(other)).collect()))
    }

    fn conflict(&self, lock: &Lock, other: u64) -> bool {
        self.entries.get(&other).is_some_and(|entry| lock.conflicts(&entry.lock))
    }

    /// The instance that a lock waits for because of keys in doubt.
    pub(crate) fn waits_for(&self, token: u64) -> Option<usize> {
        if self.doubts.is_empty() || !self.waiting.contains(&token) {
            return None;
        }
        let lock = &self.entries.get(&token)?.lock;
        let mut doubts = self.doubts.range(..token).filter_map(|doubt| self.entries.get(doubt));
        if lock.want.everything {
            let spares = lock.want.spares_doubts;
            return doubts.next().filter(|_| !spares)?.lock.doubt;
        }
        doubts.find(|entry| lock.conflicts(&entry.lock))?.lock.doubt
    }

    /// Grants a lock that conflicts with no held lock and no older one that waits.
    fn begin_if_free(&mut self, token: u64) -> Option<Arc<Lock>> {
        if !self.waiting.contains(&token) {
            return None;
        }
        let entry = self.entries.get(&token)?;
        let is_free = if entry.lock.want.everything {
            let spared = if entry.lock.want.spares_doubts { self.doubts.len() } else { 0 };
            let is_alone = self.waiting.len() + spared == self.entries.len(); // no lock is held
            is_alone && self.waiting.first() == Some(&token)
        } else {
            entry.behind == 0 && self.everything.first().is_none_or(|&older| older > token)
        };
        is_free.then(|| {
            self.waiting.remove(&token);
            Arc::clone(&entry.lock)
        })
    }
}

/// The lock table.
#[derive(Debug, Default)]
pub struct LockTable {
    hasher: RandomState,
    pub(crate) inner: Mutex<Inner>,
}

impl LockTable {
    /// The hash by which a key is known.
    #[inline]
    pub fn fingerprint(&self, db: u32, key: &[u8]) -> Fingerprint {
        self.hasher.hash_one((db, key))
    }

    /// The number of locks held or waited for.
    pub fn count(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }
}

#[cfg(test)]
#[path = "lock_table_tests.rs"]
mod tests;
