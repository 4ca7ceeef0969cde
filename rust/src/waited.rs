//! Keys for which clients wait, or are about to.
//!
//! The clients themselves wait in the coordinator. A command that may give them something goes
//! there, too, so that they are served before anybody sees what it has written. From the moment a
//! worker takes a blocking command its keys are here: what is taken later comes later.

use crate::command::{Route, Row};
use crate::keys;
use crate::request::Args;
use crate::worker::Worker;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

/// Workers that look at different keys should not meet.
const SHARDS: usize = 64;

/// How many clients wait for each key, by database.
#[derive(Debug)]
pub struct Waited {
    /// Keys of all shards.
    count: AtomicUsize,
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
#[repr(align(64))] // a cache line each
struct Shard {
    count: AtomicUsize,
    keys: Mutex<HashMap<u32, HashMap<Vec<u8>, usize>>>,
}

impl Default for Waited {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

impl Waited {
    fn shard(&self, db: u32, key: &[u8]) -> &Shard {
        let hash = self.hasher.hash_one((db, key));
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Someone waits for a key.
    pub fn add(&self, db: u32, key: &[u8]) {
        let shard = self.shard(db, key);
        let mut keys = shard.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = keys.entry(db).or_default().entry(key.to_vec()).or_default();
        *waiting += 1;
        if *waiting == 1 {
            shard.count.fetch_add(1, Release);
            self.count.fetch_add(1, Release);
        }
    }

    /// Someone does no more.
    pub fn remove(&self, db: u32, key: &[u8]) {
        let shard = self.shard(db, key);
        let mut keys = shard.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = keys.get_mut(&db) else { return };
        let Some(waiting) = keys.get_mut(key) else { return };
        *waiting -= 1;
        if *waiting == 0 {
            keys.remove(key);
            shard.count.fetch_sub(1, Release);
            self.count.fetch_sub(1, Release);
        }
    }

    /// Whether nobody waits for anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Acquire) == 0
    }

    /// Whether someone waits for a key.
    pub fn has(&self, db: u32, key: &[u8]) -> bool {
        !self.is_empty() && self.contains(db, key)
    }

    fn contains(&self, db: u32, key: &[u8]) -> bool {
        let shard = self.shard(db, key);
        shard.count.load(Acquire) > 0
            && shard
                .keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&db)
                .is_some_and(|keys| keys.contains_key(key))
    }

    /// Whether one of these is written and waited for.
    pub fn any(&self, keys: &[(u32, Vec<u8>, bool)]) -> bool {
        !self.is_empty() && keys.iter().any(|(db, key, writes)| *writes && self.contains(*db, key))
    }

    /// A blocking command is on its way to the coordinator.
    pub fn coming(&self, db: u32, row: &Row, args: Args) {
        for at in keys::all(&row.keys, args) {
            self.add(db, args.get(at));
        }
    }

    /// The coordinator has it, and has said for what it waits.
    pub fn arrived(&self, db: u32, row: &Row, args: Args) {
        for at in keys::all(&row.keys, args) {
            self.remove(db, args.get(at));
        }
    }
}

impl Worker {
    /// Whether someone waits for a key of this command.
    #[inline]
    pub(crate) fn ends_a_wait(&self, place: usize, row: &Row, args: Args) -> bool {
        !self.shared.waited.is_empty() && self.names_a_waited_key(place, row, args)
    }

    #[cold]
    fn names_a_waited_key(&self, place: usize, row: &Row, args: Args) -> bool {
        let client = &self.clients[place];
        if client.executing.is_some() || !matches!(row.route, Route::Keys | Route::Split(_)) {
            return false; // the coordinator runs it, or its transaction, already
        }
        if row.name == b"move" || row.name == b"copy" {
            return true; // into another database
        }
        let db = self.lanes.state(client.lane_set).db;
        keys::all(&row.keys, args).any(|index| self.shared.waited.contains(db, args.get(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_waited_for_until_the_last_one_leaves() {
        let waited = Waited::default();
        assert!(waited.is_empty());
        waited.add(0, b"a");
        waited.add(0, b"a");
        waited.add(1, b"b");
        waited.remove(0, b"a");
        assert!(waited.any(&[(0, b"a".to_vec(), true)]));
        assert!(!waited.any(&[(0, b"a".to_vec(), false), (1, b"a".to_vec(), true)]));
        waited.remove(0, b"a");
        waited.remove(0, b"a");
        assert!(!waited.any(&[(0, b"a".to_vec(), true)]));
        waited.remove(1, b"b");
        assert!(waited.is_empty());
    }
}
