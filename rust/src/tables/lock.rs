//! One lock: what it was asked for, and which others it conflicts with.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;

/// A key of a database, for the tables of locks.
pub type Fingerprint = u64;

/// Keys above which a lock is *large*: it is searched, and not entered key by key into tables that
/// all threads wait for.
const LARGE: usize = 256;

/// Who asked for a lock, and hears when it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The coordinator.
    Coordinator,
    /// A worker, for a commit or a locked pop of its clients.
    Worker(usize),
}

/// How a lock wants a key. Two that want it differently do not hold it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nobody else may even read it.
    Exclusive,
    /// Others may read it.
    Shared,
    /// Whatever one block on one instance does to it: the instance puts such blocks in order, so any
    /// number of them hold it together. Those who look first and write then do not.
    Passing,
}

impl Mode {
    pub(crate) fn goes_with(self, other: Self) -> bool {
        self == other && self != Self::Exclusive
    }
}

/// What a lock is asked for.
#[derive(Debug)]
pub struct Want {
    /// Keys, and whether nobody else may have them. Those of a lock that is not told are shared only
    /// with others that are not.
    pub keys: Vec<(Fingerprint, bool)>,
    /// The whole keyspace, every database.
    pub everything: bool,
    /// Instances on which nothing may be in flight before it holds.
    pub instances: Vec<usize>,
    /// Who asks.
    pub holder: Holder,
    /// Workers hold their clients' commands back; else it only keeps other holders away.
    pub is_told: bool,
    /// Keys in doubt do not matter: none is touched.
    pub spares_doubts: bool,
}

impl Want {
    /// How it wants a key.
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
    /// Its name.
    pub token: u64,
    /// What it was asked for; its keys are in order.
    pub want: Want,
    /// It is known by its list of keys alone.
    pub is_large: bool,
    /// Whoever has it may write.
    pub(crate) writes: bool,
    /// Workers that have not said yet that it holds there.
    missing: AtomicUsize,
    /// Its keys are not waited for: what becomes of them is known only when this instance is back.
    pub doubt: Option<usize>,
}

impl Lock {
    /// A lock of which so many workers must say that it holds there; its keys are `in_order`.
    pub(crate) fn new(token: u64, want: Want, workers: usize) -> Self {
        let is_large = want.keys.len() > LARGE;
        let writes = want.everything || want.keys.iter().any(|&(_, is_exclusive)| is_exclusive);
        Self { token, want, is_large, writes, missing: AtomicUsize::new(workers), doubt: None }
    }

    /// What is left of it: these keys, in order, until that instance is back.
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

    /// One more worker says that it holds there; true if all have.
    pub(crate) fn holds_at_one_more(&self) -> bool {
        self.missing.fetch_sub(1, AcqRel) == 1
    }

    /// True while a key of it may not be written, or not even read.
    pub(crate) fn stops(&self, key: Fingerprint, writes: bool) -> bool {
        let keys = &self.want.keys;
        let found = keys.binary_search_by_key(&key, |&(key, _)| key);
        found.is_ok_and(|at| writes || keys[at].1)
    }

    /// True if it cannot be held together with another, because of a key.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let (few, many) = if self.want.keys.len() < other.want.keys.len() {
            (self, other)
        } else {
            (other, self)
        };
        let mut rest = &many.want.keys[..];
        few.want.keys.iter().any(|&(key, is_exclusive)| {
            // Those before it are of no interest to those behind it: two long lists are walked once.
            rest = &rest[gallop(rest, key)..];
            let mode = few.want.mode(is_exclusive);
            let is_met = |other| !mode.goes_with(many.want.mode(other));
            rest.first().is_some_and(|&(same, other)| same == key && is_met(other))
        })
    }
}

/// How many keys are smaller than this one; quick if there are few of them.
fn gallop(keys: &[(Fingerprint, bool)], key: Fingerprint) -> usize {
    let mut step = 1;
    while keys.get(step - 1).is_some_and(|&(other, _)| other < key) {
        step *= 2;
    }
    let (from, to) = (step / 2, keys.len().min(step));
    from + keys[from..to].partition_point(|&(other, _)| other < key)
}

/// Each key once, exclusive if it is anywhere.
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
