//! Keys that clients are blocked on, or are about to be.
//!
//! The blocked clients themselves are kept by the coordinator. A command that may serve them is
//! sent to the coordinator too, so that they are served before any client sees what it has written.
//! So is a command that reads their keys, which must not see what a script has just pushed for
//! them. The keys are entered here when a worker takes the blocking command, so every command that
//! is taken later comes after it.

use crate::base::client_key::ClientKey;
use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::resp::request::Args;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// The number of shards; many, so that workers with different keys rarely need the same one.
const SHARDS: usize = 1 << SHARD_BITS;

const SHARD_BITS: u32 = 6;

/// The bytes at the end of a key by which its shard is chosen, because keys differ there.
const TAIL: usize = 8;

/// The number of arguments above which a command's keys make one entry here while it is in flight,
/// not one entry each, because a worker has other clients to serve.
const MANY: usize = 256;

/// The number of clients blocked on each key, by database.
#[derive(Debug)]
pub struct BlockingKeys {
    /// The number of keys in all shards.
    count: AtomicUsize,
    shards: [Shard; SHARDS],
    /// All keys in order; prefixes are rarely searched for.
    sorted: Mutex<BTreeSet<(u32, Vec<u8>)>>,
    /// Commands with many keys that are in flight, and their number.
    many: RwLock<Vec<Many>>,
    many_count: AtomicUsize,
    hasher: RandomState,
}

/// The keys of one such command as hashes, in order. A collision only causes a detour.
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
    /// Must be fast: while a client is blocked, every read asks for a shard.
    fn shard(&self, db: u32, key: &[u8]) -> &Shard {
        let tail = key.iter().rev().take(TAIL);
        let sum = tail.fold(u64::from(db), |sum, &byte| sum << 8 ^ sum >> 56 ^ u64::from(byte));
        let mixed = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARD_BITS);
        &self.shards[usize::try_from(mixed).unwrap_or(0)]
    }

    /// Adds a client that is blocked on a key.
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

    /// Removes a client that was blocked on a key.
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

    /// True if no client is blocked.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Acquire) == 0
    }

    /// True if a client is blocked on a key.
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

    /// True if a client is blocked on a key with this prefix.
    pub fn begins(&self, db: u32, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.many_count.load(Acquire) > 0 {
            return true; // unknown
        }
        let first = (db, key.to_vec());
        let sorted = self.sorted();
        let next = sorted.range(first..).next();
        next.is_some_and(|(other, name)| *other == db && name.starts_with(key))
    }

    /// The keys with this prefix that clients are blocked on, as far as their names are known.
    pub fn beginning(&self, db: u32, key: &[u8]) -> Vec<Vec<u8>> {
        let (first, sorted) = ((db, key.to_vec()), self.sorted());
        let begun = |(other, name): &&(u32, Vec<u8>)| *other == db && name.starts_with(key);
        sorted.range(first..).take_while(begun).map(|(_, name)| name.clone()).collect()
    }

    fn sorted(&self) -> MutexGuard<'_, BTreeSet<(u32, Vec<u8>)>> {
        self.sorted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a client is blocked on one of these keys, even if they are only read: a reader must
    /// not see what a script pushes before it is given to the blocked clients.
    pub fn any(&self, keys: &[(u32, Vec<u8>, bool)]) -> bool {
        !self.is_empty() && keys.iter().any(|(db, key, _)| self.contains(*db, key))
    }

    /// A blocking command is in flight to the coordinator.
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

    /// A command with many keys has reached the coordinator; false if this client has sent none.
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

    /// The coordinator has got the command, and has entered the keys that it is blocked on.
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
