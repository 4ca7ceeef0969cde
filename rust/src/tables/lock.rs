//! One lock: its request, and its conflicts with others.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;

/// The hash of a key and its database, for the tables of locks.
pub type Fingerprint = u64;

/// The number of keys above which a lock is *large*: it is searched, instead of being entered key
/// by key into tables that all threads wait for.
const LARGE: usize = 256;

/// The thread that asked for a lock, and is notified when it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The coordinator.
    Coordinator,
    /// A worker, for a commit or a locked pop of its clients.
    Worker(usize),
}

/// The mode in which a lock wants a key. Locks in conflicting modes exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No other client may even read the key.
    Exclusive,
    /// Others may read the key.
    Shared,
    /// The key is used by one block on one instance only, in any way. The instance runs such blocks
    /// one after the other, so any number of these locks hold together. A command that first reads
    /// and then writes must not use this mode.
    Passing,
}

impl Mode {
    pub(crate) fn goes_with(self, other: Self) -> bool {
        self == other && self != Self::Exclusive
    }
}

/// The request for a lock.
#[derive(Debug)]
pub struct Want {
    /// Keys, and whether they are exclusive. Keys that are not exclusive are shared only among
    /// locks with the same `is_told`.
    pub keys: Vec<(Fingerprint, bool)>,
    /// The whole keyspace, every database.
    pub everything: bool,
    /// The instances on which nothing may be in flight before the lock holds.
    pub instances: Vec<usize>,
    /// The thread that asks.
    pub holder: Holder,
    /// Workers hold their clients' commands back; without it, the lock only excludes other holders.
    pub is_told: bool,
    /// Keys in doubt do not prevent the lock, because none is touched.
    pub spares_doubts: bool,
}

impl Want {
    /// The mode for a key.
    pub(crate) fn mode(&self, is_exclusive: bool) -> Mode {
        match (is_exclusive, self.is_told) {
            (true, _) => Mode::Exclusive,
            (false, true) => Mode::Shared,
            (false, false) => Mode::Passing,
        }
    }
}

/// One lock.
#[derive(Debug)]
pub struct Lock {
    /// Its unique number.
    pub token: u64,
    /// Its request, with the keys in order.
    pub want: Want,
    /// Its keys are only in its own list.
    pub is_large: bool,
    /// Its holder may write.
    pub(crate) writes: bool,
    /// The workers that have not confirmed the lock.
    missing: AtomicUsize,
    /// Its keys are in doubt: their state is known only when this instance is back. Commands are
    /// refused instead of waiting for them.
    pub doubt: Option<usize>,
}

impl Lock {
    /// A lock that this many workers must confirm; its keys are `in_order`.
    pub(crate) fn new(token: u64, want: Want, workers: usize) -> Self {
        let is_large = want.keys.len() > LARGE;
        let writes = want.everything || want.keys.iter().any(|&(_, is_exclusive)| is_exclusive);
        Self { token, want, is_large, writes, missing: AtomicUsize::new(workers), doubt: None }
    }

    /// The rest of the lock: these keys, in order, in doubt until the instance is back.
    pub(crate) fn in_doubt(&self, keys: Vec<(Fingerprint, bool)>, instance: usize) -> Self {
        let want = Want {
            keys,
            everything: false,
            instances: Vec::new(),
            holder: self.want.holder,
            is_told: true,
            spares_doubts: false,
        };
        let (missing, doubt) = (AtomicUsize::new(0), Some(instance));
        Self { token: self.token, want, is_large: self.is_large, writes: true, missing, doubt }
    }

    /// One more worker has confirmed the lock; true if all have.
    pub(crate) fn holds_at_one_more(&self) -> bool {
        self.missing.fetch_sub(1, AcqRel) == 1
    }

    /// True if the lock prevents a key from being written, or even from being read.
    pub(crate) fn stops(&self, key: Fingerprint, writes: bool) -> bool {
        let keys = &self.want.keys;
        let found = keys.binary_search_by_key(&key, |&(key, _)| key);
        found.is_ok_and(|at| writes || keys[at].1)
    }

    /// True if both locks want the same key in conflicting modes.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let (few, many) = if self.want.keys.len() < other.want.keys.len() {
            (self, other)
        } else {
            (other, self)
        };
        let mut rest = &many.want.keys[..];
        few.want.keys.iter().any(|&(key, is_exclusive)| {
            // Both lists are sorted, so each is walked only once.
            rest = &rest[gallop(rest, key)..];
            let mode = few.want.mode(is_exclusive);
            let is_met = |other| !mode.goes_with(many.want.mode(other));
            rest.first().is_some_and(|&(same, other)| same == key && is_met(other))
        })
    }
}

/// The number of smaller keys; fast if there are few of them.
fn gallop(keys: &[(Fingerprint, bool)], key: Fingerprint) -> usize {
    let mut step = 1;
    while keys.get(step - 1).is_some_and(|&(other, _)| other < key) {
        step *= 2;
    }
    let (from, to) = (step / 2, keys.len().min(step));
    from + keys[from..to].partition_point(|&(other, _)| other < key)
}

/// Sorts keys and removes duplicates; a key that is exclusive anywhere stays so.
pub(crate) fn in_order(keys: &mut Vec<(Fingerprint, bool)>) {
    keys.sort_unstable_by_key(|&(key, is_exclusive)| (key, !is_exclusive));
    keys.dedup_by_key(|(key, _)| *key);
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lock(keys: impl IntoIterator<Item = (Fingerprint, bool)>) -> Lock {
        let mut keys: Vec<_> = keys.into_iter().collect();
        in_order(&mut keys);
        let (instances, holder) = (Vec::new(), Holder::Coordinator);
        let (everything, is_told, spares_doubts) = (false, true, false);
        Lock::new(1, Want { keys, everything, instances, holder, is_told, spares_doubts }, 1)
    }

    #[test]
    fn a_key_in_common_is_found_wherever_it_is() {
        let even = lock((0..1000).map(|key| (key * 2, key % 3 == 0)));
        for (key, stops_readers) in [(0, true), (2, false), (6, true), (1998, true), (1996, false)]
        {
            assert_eq!((even.stops(key, true), even.stops(key, false)), (true, stops_readers));
            for (is_exclusive, conflicts) in [(true, true), (false, stops_readers)] {
                let other = lock([(1, true), (key, is_exclusive), (997, true), (5000, true)]);
                assert_eq!(other.conflicts(&even), conflicts, "{key}");
                assert_eq!(even.conflicts(&other), conflicts, "{key}");
            }
        }
        let odd = lock((0..1000).map(|key| (key * 2 + 1, true)));
        assert!(!odd.conflicts(&even) && !even.conflicts(&odd) && even.conflicts(&even));
        assert!(!odd.stops(2, true) && !lock([]).conflicts(&even));
    }
}
