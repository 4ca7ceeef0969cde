//! The one lock table of the process: who holds which keys, and who waits for them.
//!
//! A lock names all its keys at once and is granted in order of arrival, so there is no deadlock and
//! nobody starves. Once granted, every worker lets its clients wait for those keys (`locks.rs`) and
//! says so when nothing is in flight that could miss it; from then on the holder is alone with them.
//! Keys are known by fingerprints: two that share one wait for each other, and nothing is wrong.

use crate::group::Group;
use crate::shared::{Door, Mail, Shared, ToCoordinator};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::{Arc, Mutex, PoisonError};

/// A key of a database, for the tables of locks.
pub type Fingerprint = u64;

/// Who asked for a lock, and hears when it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The coordinator.
    Coordinator,
    /// A worker, for a commit or a look of its clients.
    Worker(usize),
}

/// What a lock is asked for.
#[derive(Debug)]
pub struct Want {
    /// Keys, and whether nobody else may even read them.
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

/// One lock.
#[derive(Debug)]
pub struct Lock {
    /// Its name.
    pub token: u64,
    /// What it was asked for.
    pub want: Want,
    /// Workers that have not said yet that it holds there.
    missing: AtomicUsize,
    /// Its keys are not waited for: what becomes of them is known only when this instance is back.
    pub doubt: Option<usize>,
}

/// A lock of the table.
#[derive(Debug)]
struct Entry {
    lock: Arc<Lock>,
    /// Keys for which it is not its turn yet.
    behind: usize,
}

/// What a lock wants of a key.
#[derive(Debug)]
struct Place {
    is_exclusive: bool,
    has_turn: bool,
}

/// The locks that want a key, in order of arrival.
///
/// It is the turn of the first, and if that shares the key, of all behind it that do, up to one
/// that does not. Whoever leaves costs only those whose turn comes.
#[derive(Debug, Default)]
struct Line {
    /// By token: whoever asks later has a higher one.
    places: BTreeMap<u64, Place>,
    exclusive: usize,
}

impl Line {
    /// Stands at the end; whether it is its turn at once.
    fn join(&mut self, token: u64, is_exclusive: bool) -> bool {
        let has_turn = self.places.is_empty() || !(is_exclusive || self.exclusive > 0);
        self.places.insert(token, Place { is_exclusive, has_turn });
        self.exclusive += usize::from(is_exclusive);
        has_turn
    }

    /// Stands before all others; adds those whose turn it is not any more.
    fn push_in(&mut self, token: u64, is_exclusive: bool, pushed: &mut Vec<u64>) {
        for (&other, place) in &mut self.places {
            if place.has_turn && (is_exclusive || place.is_exclusive) {
                place.has_turn = false;
                pushed.push(other);
            }
        }
        self.places.insert(token, Place { is_exclusive, has_turn: true });
        self.exclusive += usize::from(is_exclusive);
    }

    /// Makes room; adds those whose turn it is now.
    fn leave(&mut self, token: u64, found: &mut Vec<u64>) {
        let Some(left) = self.places.remove(&token) else { return };
        self.exclusive -= usize::from(left.is_exclusive);
        for (index, (&other, place)) in self.places.iter_mut().enumerate() {
            if place.is_exclusive && index > 0 {
                break;
            }
            if !place.has_turn {
                place.has_turn = true;
                found.push(other);
            }
            if place.is_exclusive || !left.is_exclusive {
                break; // those behind it had their turn before, or have it later
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    last_token: u64,
    entries: BTreeMap<u64, Entry>,
    /// Not granted yet.
    waiting: BTreeSet<u64>,
    /// Those on everything, held or not.
    everything: BTreeSet<u64>,
    /// Those whose keys are in doubt.
    doubts: BTreeSet<u64>,
    lines: HashMap<Fingerprint, Line>,
}

impl Inner {
    /// Adds a lock; its token, and the lock if it is granted at once.
    fn ask(&mut self, mut want: Want, workers: usize) -> (u64, Option<Arc<Lock>>) {
        in_order(&mut want.keys);
        self.last_token += 1;
        let token = self.last_token;
        let mut behind = 0;
        for &(key, is_exclusive) in &want.keys {
            behind += usize::from(!self.lines.entry(key).or_default().join(token, is_exclusive));
        }
        if want.everything {
            self.everything.insert(token);
        }
        let lock = Arc::new(Lock { token, want, missing: AtomicUsize::new(workers), doubt: None });
        self.entries.insert(token, Entry { lock, behind });
        self.waiting.insert(token);
        (token, self.begin_if_free(token))
    }

    /// Ends a lock, or a wait for one; those that are granted now.
    fn release(&mut self, token: u64) -> Vec<Arc<Lock>> {
        let Some(entry) = self.entries.remove(&token) else { return Vec::new() };
        self.waiting.remove(&token);
        self.everything.remove(&token);
        self.doubts.remove(&token);
        let mut free = Vec::new();
        for &(key, _) in &entry.lock.want.keys {
            self.leave(token, key, &mut free);
        }
        if entry.lock.want.everything {
            free = self.waiting.iter().copied().collect();
        } else if !self.everything.is_empty() {
            free.extend(self.waiting.first());
        }
        free.into_iter().filter_map(|other| self.begin_if_free(other)).collect()
    }

    /// A lock does not want a key any more; adds those whose turn it is there now.
    fn leave(&mut self, token: u64, key: Fingerprint, free: &mut Vec<u64>) {
        let before = free.len();
        if let Some(line) = self.lines.get_mut(&key) {
            line.leave(token, free);
            if line.places.is_empty() {
                self.lines.remove(&key);
            }
        }
        for other in &free[before..] {
            if let Some(entry) = self.entries.get_mut(other) {
                entry.behind -= 1;
            }
        }
    }

    /// Lets a lock that is held keep only these of its keys, which nobody waits for: it, and those
    /// that are granted now.
    fn doubt(
        &mut self,
        token: u64,
        mut keys: Vec<(Fingerprint, bool)>,
        instance: usize,
    ) -> Option<(Arc<Lock>, Vec<Arc<Lock>>)> {
        in_order(&mut keys);
        let mut pushed = Vec::new();
        if self.everything.remove(&token) {
            for &(key, is_exclusive) in &keys {
                self.lines.entry(key).or_default().push_in(token, is_exclusive, &mut pushed);
            }
        }
        for other in pushed {
            self.entries.get_mut(&other)?.behind += 1;
        }
        let entry = self.entries.get_mut(&token)?;
        let want = &entry.lock.want;
        let is_kept = |key: &Fingerprint| keys.binary_search_by_key(key, |&(key, _)| key).is_ok();
        let left: Vec<Fingerprint> =
            want.keys.iter().map(|&(key, _)| key).filter(|key| !is_kept(key)).collect();
        let was_everything = want.everything;
        let want = Want {
            keys,
            everything: false,
            instances: Vec::new(),
            holder: want.holder,
            is_told: true,
            spares_doubts: false,
        };
        let missing = AtomicUsize::new(0);
        entry.lock = Arc::new(Lock { token, want, missing, doubt: Some(instance) });
        let lock = Arc::clone(&entry.lock);
        self.doubts.insert(token);
        let mut free = Vec::new();
        for key in left {
            self.leave(token, key, &mut free);
        }
        if was_everything {
            free = self.waiting.iter().copied().collect();
        } else {
            free.extend(self.everything.first());
        }
        Some((lock, free.into_iter().filter_map(|other| self.begin_if_free(other)).collect()))
    }

    /// The instance for which a lock would wait that waits for keys in doubt.
    fn waits_for(&self, token: u64) -> Option<usize> {
        if self.doubts.is_empty() || !self.waiting.contains(&token) {
            return None;
        }
        let want = &self.entries.get(&token)?.lock.want;
        let instance = |doubt: &u64| self.entries.get(doubt)?.lock.doubt;
        if want.everything {
            return if want.spares_doubts { None } else { instance(self.doubts.first()?) };
        }
        want.keys.iter().find_map(|(key, is_exclusive)| {
            let before = self.lines.get(key)?.places.range(..token);
            let mut doubts = before.filter(|(other, place)| {
                self.doubts.contains(other) && (place.is_exclusive || *is_exclusive)
            });
            instance(doubts.next()?.0)
        })
    }

    /// Grants a lock that conflicts with nothing held and with nothing older that waits.
    fn begin_if_free(&mut self, token: u64) -> Option<Arc<Lock>> {
        if !self.waiting.contains(&token) {
            return None;
        }
        let entry = self.entries.get(&token)?;
        let is_free = if entry.lock.want.everything {
            let spared = if entry.lock.want.spares_doubts { self.doubts.len() } else { 0 };
            let is_alone = self.waiting.len() + spared == self.entries.len(); // nothing is held
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

/// Each key once, exclusive if it is anywhere.
fn in_order(keys: &mut Vec<(Fingerprint, bool)>) {
    keys.sort_unstable_by_key(|&(key, is_exclusive)| (key, !is_exclusive));
    keys.dedup_by_key(|(key, _)| *key);
}

/// The table.
#[derive(Debug, Default)]
pub struct LockTable {
    hasher: RandomState,
    inner: Mutex<Inner>,
}

impl LockTable {
    /// What a key is known by.
    #[inline]
    pub fn fingerprint(&self, db: u32, key: &[u8]) -> Fingerprint {
        self.hasher.hash_one((db, key))
    }

    /// How many locks are held or waited for.
    pub fn count(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }
}

impl Shared {
    /// What to lock for a key: itself, and that no script of its group runs meanwhile, which may touch
    /// the key without having declared it.
    pub(crate) fn push_lock_of(
        &self,
        db: u32,
        key: &[u8],
        is_exclusive: bool,
        keys: &mut Vec<(Fingerprint, bool)>,
    ) {
        keys.push((self.lock_table.fingerprint(db, key), is_exclusive));
        if let Some(group) = Group::of(key, &self.placement) {
            keys.push((self.lock_table.fingerprint(db, &group.lock()), false));
        }
    }

    /// Asks for a lock: its token, and the lock if it is granted at once. One that no worker is told
    /// of then holds; of any other its holder hears later. A worker that asks (`me`) tells itself.
    pub fn ask_lock(&self, want: Want, me: Option<usize>) -> (u64, Option<Arc<Lock>>) {
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, begun) = inner.ask(want, self.doors.len());
        // Posted while nobody else can change the table: what is told first happened first.
        begun.iter().filter(|lock| lock.want.is_told).for_each(|lock| self.tell(lock, me));
        (token, begun)
    }

    /// Ends a lock, or a wait for one; those of which a worker that does so must tell itself.
    pub fn release_lock(&self, token: u64, me: Option<usize>) -> Vec<Arc<Lock>> {
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = inner.entries.get(&token) else { return Vec::new() };
        if entry.lock.want.is_told && !inner.waiting.contains(&token) {
            self.others(me).for_each(|door| door.mailbox.post(Mail::Unlock(token)));
        }
        let mut begun = inner.release(token);
        begun.retain(|lock| {
            if lock.want.is_told {
                self.tell(lock, me);
            } else {
                self.lock_holds(lock, None);
            }
            lock.want.is_told
        });
        begun
    }

    /// A lock that is held keeps only these of its keys, and nobody waits for them: what becomes of
    /// them is known only when this instance is back.
    pub fn doubt_lock(&self, token: u64, keys: Vec<(Fingerprint, bool)>, instance: usize) {
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((lock, begun)) = inner.doubt(token, keys, instance) else { return };
        self.doors.iter().for_each(|door| door.mailbox.post(Mail::Doubt(Arc::clone(&lock))));
        for lock in begun {
            if lock.want.is_told {
                self.tell(&lock, None);
            } else {
                self.lock_holds(&lock, None);
            }
        }
    }

    /// The instance that must be back before a lock can hold that was asked for.
    pub fn lock_waits_for(&self, token: u64) -> Option<usize> {
        self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner).waits_for(token)
    }

    /// A lock holds at a worker; true if it holds at all, and is that worker's own.
    pub fn lock_holds_here(&self, lock: &Lock, me: usize) -> bool {
        lock.missing.fetch_sub(1, AcqRel) == 1 && self.lock_holds(lock, Some(me))
    }

    fn lock_holds(&self, lock: &Lock, me: Option<usize>) -> bool {
        let token = lock.token;
        match lock.want.holder {
            Holder::Worker(index) if Some(index) == me => return true,
            Holder::Worker(index) => self.doors[index].mailbox.post(Mail::Locked(token)),
            Holder::Coordinator => self.coordinator.post(ToCoordinator::Locked { token }),
        }
        false
    }

    fn tell(&self, lock: &Arc<Lock>, me: Option<usize>) {
        self.others(me).for_each(|door| door.mailbox.post(Mail::Lock(Arc::clone(lock))));
    }

    fn others(&self, me: Option<usize>) -> impl Iterator<Item = &Door> {
        let doors = self.doors.iter().enumerate();
        doors.filter(move |(index, _)| Some(*index) != me).map(|(_, door)| door)
    }
}

#[cfg(test)]
#[path = "lock_table_tests.rs"]
mod tests;
