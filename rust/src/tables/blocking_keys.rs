//! Keys for which clients wait, or are about to.
//!
//! The clients themselves wait in the coordinator. A command that may give them something goes
//! there, too, so that they are served before anybody sees what it has written; so does what reads
//! their keys, which must not see what a script has just pushed for them. From the moment a worker
//! takes a blocking command its keys are here: what is taken later comes later.

use crate::base::client_key::ClientKey;
use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::resp::request::Args;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Workers that look at different keys should not meet.
const SHARDS: usize = 1 << SHARD_BITS;

const SHARD_BITS: u32 = 6;

/// Bytes at the end of a key, where keys differ, by which its shard is chosen.
const TAIL: usize = 8;

/// Words of a command above which its keys are one entry here, not one each, while it is on its way:
/// a worker has other clients.
const MANY: usize = 256;

/// How many clients wait for each key, by database.
#[derive(Debug)]
pub struct BlockingKeys {
    /// Keys of all shards.
    count: AtomicUsize,
    shards: [Shard; SHARDS],
    /// All of them: few ask what they begin with.
    sorted: Mutex<BTreeSet<(u32, Vec<u8>)>>,
    /// Commands with many keys that are on their way, and how many they are.
    many: RwLock<Vec<Many>>,
    many_count: AtomicUsize,
    hasher: RandomState,
}

/// The keys of one such command, in order. Two that share a number only take the longer way.
#[derive(Debug)]
struct Many {
    client: ClientKey,
    keys: Vec<u64>,
}

#[derive(Debug, Default)]
#[repr(align(64))] // a cache line each
struct Shard {
    count: AtomicUsize,
    keys: Mutex<HashMap<u32, HashMap<Vec<u8>, usize>>>,
}

impl Default for BlockingKeys {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Shard::default()),
            sorted: Mutex::default(),
            many: RwLock::default(),
            many_count: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl BlockingKeys {
    /// Quick: while somebody waits, all that is read asks for it.
    fn shard(&self, db: u32, key: &[u8]) -> &Shard {
        let tail = key.iter().rev().take(TAIL);
        let sum = tail.fold(u64::from(db), |sum, &byte| sum << 8 ^ sum >> 56 ^ u64::from(byte));
        let mixed = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARD_BITS);
        &self.shards[usize::try_from(mixed).unwrap_or(0)]
    }

    /// Someone waits for a key.
    pub fn add(&self, db: u32, key: &[u8]) {
        let shard = self.shard(db, key);
        let mut keys = shard.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = keys.entry(db).or_default().entry(key.to_vec()).or_default();
        *waiting += 1;
        if *waiting == 1 {
            self.sorted().insert((db, key.to_vec()));
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
            self.sorted().remove(&(db, key.to_vec()));
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

    fn is_among_many(&self, db: u32, key: &[u8]) -> bool {
        self.many_count.load(Acquire) > 0 && {
            let key = self.hasher.hash_one((db, key));
            self.many().iter().any(|many| many.keys.binary_search(&key).is_ok())
        }
    }

    fn many(&self) -> RwLockReadGuard<'_, Vec<Many>> {
        self.many.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        let shard = self.shard(db, key);
        let is_in_shard = || {
            let keys = shard.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.get(&db).is_some_and(|keys| keys.contains_key(key))
        };
        shard.count.load(Acquire) > 0 && is_in_shard() || self.is_among_many(db, key)
    }

    /// Whether someone waits for a key that begins like this one.
    pub fn begins(&self, db: u32, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.many_count.load(Acquire) > 0 {
            return true; // nobody knows
        }
        let first = (db, key.to_vec());
        let sorted = self.sorted();
        let next = sorted.range(first..).next();
        next.is_some_and(|(other, name)| *other == db && name.starts_with(key))
    }

    /// The keys that begin like this one for which someone waits, as far as they are known by name.
    pub fn beginning(&self, db: u32, key: &[u8]) -> Vec<Vec<u8>> {
        let (first, sorted) = ((db, key.to_vec()), self.sorted());
        let begun = |(other, name): &&(u32, Vec<u8>)| *other == db && name.starts_with(key);
        sorted.range(first..).take_while(begun).map(|(_, name)| name.clone()).collect()
    }

    fn sorted(&self) -> MutexGuard<'_, BTreeSet<(u32, Vec<u8>)>> {
        self.sorted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether someone waits for one of these. Who only reads it must not see what is pushed there
    /// by a script before that is given to those who wait.
    pub fn any(&self, keys: &[(u32, Vec<u8>, bool)]) -> bool {
        !self.is_empty() && keys.iter().any(|(db, key, _)| self.contains(*db, key))
    }

    /// A blocking command is on its way to the coordinator.
    pub fn announce(&self, client: ClientKey, db: u32, row: &Row, args: Args) {
        if args.len() > MANY {
            let keys = key_specs::all(&row.keys, args);
            let mut keys: Vec<_> =
                keys.map(|at| self.hasher.hash_one((db, args.get(at)))).collect();
            keys.sort_unstable();
            self.many.write().unwrap_or_else(PoisonError::into_inner).push(Many { client, keys });
            self.many_count.fetch_add(1, Release);
            self.count.fetch_add(1, Release);
            return;
        }
        for at in key_specs::all(&row.keys, args) {
            self.add(db, args.get(at));
        }
    }

    /// The coordinator has one with many keys; false if this client has sent none.
    pub fn many_confirmed(&self, client: ClientKey) -> bool {
        if self.many_count.load(Acquire) == 0 {
            return false;
        }
        let mut many = self.many.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = many.iter().position(|one| one.client == client) else { return false };
        let arrived = many.swap_remove(at);
        drop(many);
        drop(arrived);
        self.many_count.fetch_sub(1, Release);
        self.count.fetch_sub(1, Release);
        true
    }

    /// The coordinator has it, and has said for what it waits.
    pub fn confirm(&self, db: u32, row: &Row, args: Args) {
        for at in key_specs::all(&row.keys, args) {
            self.remove(db, args.get(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_key_is_found() {
        let blocking_keys = BlockingKeys::default();
        assert!(!blocking_keys.begins(0, b""));
        blocking_keys.add(1, b"queue:jobs");
        for (db, key, is_found) in [
            (1, "queue", true),
            (1, "queue:jobs", true),
            (1, "queue:k", false),
            (0, "queue", false),
        ] {
            assert_eq!(blocking_keys.begins(db, key.as_bytes()), is_found, "{key}");
        }
        blocking_keys.remove(1, b"queue:jobs");
        assert!(!blocking_keys.begins(1, b"queue"));
    }

    #[test]
    fn a_key_is_waited_for_until_the_last_one_leaves() {
        let blocking_keys = BlockingKeys::default();
        assert!(blocking_keys.is_empty());
        blocking_keys.add(0, b"a");
        blocking_keys.add(0, b"a");
        blocking_keys.add(1, b"b");
        blocking_keys.remove(0, b"a");
        assert!(blocking_keys.any(&[(0, b"a".to_vec(), true)]));
        assert!(blocking_keys.any(&[(0, b"a".to_vec(), false)]));
        assert!(!blocking_keys.any(&[(1, b"a".to_vec(), true)]));
        blocking_keys.remove(0, b"a");
        blocking_keys.remove(0, b"a");
        assert!(!blocking_keys.any(&[(0, b"a".to_vec(), true)]));
        blocking_keys.remove(1, b"b");
        assert!(blocking_keys.is_empty());
    }
}
