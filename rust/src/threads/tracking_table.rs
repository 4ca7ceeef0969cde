//! The clients that track, and the keys they have read: one table for all workers.

use crate::base::client_key::ClientKey;
use crate::client::tracking_mode::Mode;
use crate::resp::request::{push_array, push_bulk};
use crate::tables::read_keys::ReadKeys;
use crate::threads::letters::{Door, Mail};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most changed keys that are noted for one script.
const NOTED_MOST: usize = 10_000;

/// The most keys that a worker frees itself; it takes some milliseconds.
const FREED_AT_ONCE: usize = 10_000;

/// All clients that track, and the keys they have read.
#[derive(Debug)]
pub struct Tracking {
    tables: Mutex<Tables>,
    /// The number of clients that track.
    trackers: AtomicUsize,
    /// The most keys that are remembered; 0: no limit.
    max_keys: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tables {
    clients: BTreeMap<u64, Tracker>,
    readers: ReadKeys,
    items: usize,
    prefixes: BTreeMap<Vec<u8>, HashSet<u64>>,
    /// Keys that the coordinator is changing; their invalidations are sent together.
    changing: HashMap<Vec<u8>, Change>,
    /// Keys that have changed since scripts began whose reads are known only after they end.
    noted: HashMap<u64, Noted>,
    last_write: u64,
    /// How many invalidations have been sent.
    told: u64,
}

#[derive(Debug)]
struct Tracker {
    key: ClientKey,
    target: Option<ClientKey>,
    prefixes: Vec<Vec<u8>>,
    /// The body that stands for all keys: of this client's protocol, even if it redirects.
    null: &'static [u8],
}

/// A change that the coordinator makes under a lock on the key.
#[derive(Debug)]
struct Change {
    ticket: u64,
    order: usize,
    /// The client that makes the change and needs no invalidation; and how many invalidations of
    /// the instances its change causes. Any more come from other changes.
    owner: Option<(u64, u32)>,
    said: u32,
}

/// Keys that have changed.
#[derive(Debug, Default)]
struct Noted {
    keys: HashSet<Vec<u8>>,
    /// There were too many to note: any key may have changed.
    is_full: bool,
}

/// The number of clients that track, of keys, of readers of keys, and of prefixes.
pub type Counts = (usize, usize, usize, usize);

impl Default for Tracking {
    fn default() -> Self {
        Self {
            tables: Mutex::default(),
            trackers: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(1_000_000),
        }
    }
}

impl Tracking {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if any client tracks.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.trackers.load(Relaxed) > 0
    }

    /// Starts tracking for a client, or changes its mode.
    pub fn set(&self, id: u64, key: ClientKey, mode: &Mode, resp3: bool) {
        let mut tables = self.lock();
        let target = mode.redirect.map(|(_, target)| target);
        let prefixes = mode.prefixes.clone().unwrap_or_default();
        for prefix in &prefixes {
            tables.prefixes.entry(prefix.clone()).or_default().insert(id);
        }
        tables.clients.insert(id, Tracker { key, target, prefixes, null: null(resp3) });
        self.trackers.store(tables.clients.len(), Relaxed);
    }

    /// Stops tracking. The keys that the client has read are forgotten when they change, as in the
    /// server.
    pub fn end(&self, id: u64) {
        let mut tables = self.lock();
        let Some(tracker) = tables.clients.remove(&id) else { return };
        for prefix in tracker.prefixes {
            if let Some(ids) = tables.prefixes.get_mut(&prefix) {
                ids.remove(&id);
                if ids.is_empty() {
                    tables.prefixes.remove(&prefix);
                }
            }
        }
        self.trackers.store(tables.clients.len(), Relaxed);
        if tables.clients.is_empty() {
            // No client tracks any more: no feed is read, unless a client is about to track again.
            let changing = std::mem::take(&mut tables.changing);
            let noted = std::mem::take(&mut tables.noted);
            let old = std::mem::take(&mut *tables);
            (tables.changing, tables.noted) = (changing, noted);
            drop(tables);
            discard(old.readers);
        }
    }

    /// A client is about to read these keys. Returns those that it had not read before.
    pub fn remember<'a>(
        &self,
        id: u64,
        keys: impl Iterator<Item = &'a [u8]>,
        doors: &[Door],
    ) -> Vec<&'a [u8]> {
        let mut tables = self.lock();
        let mut new = Vec::new();
        for key in keys {
            if tables.readers.add(key, id) {
                tables.items += 1;
                new.push(key);
            }
        }
        tables.trim(self.max_keys.load(Relaxed), doors);
        new
    }

    /// The client did not read these keys after all.
    pub fn forget(&self, id: u64, keys: &[Vec<u8>]) {
        let mut tables = self.lock();
        for key in keys {
            tables.forget(id, key);
        }
    }

    /// Starts noting the keys that change.
    pub fn begin_reading(&self, ticket: u64) {
        self.lock().noted.insert(ticket, Noted::default());
    }

    /// A client's reads are known now: it is notified of those keys that have changed.
    pub fn end_reading(&self, ticket: u64, id: u64, keys: &[Vec<u8>], doors: &[Door]) {
        let mut tables = self.lock();
        let Some(noted) = tables.noted.remove(&ticket) else { return };
        for key in keys.iter().filter(|&key| noted.is_full || noted.keys.contains(key)) {
            if !tables.forget(id, key) {
                continue; // notified already
            }
            if let Some(body) = names([key.as_slice()].into_iter()) {
                tables.tell_reader(id, &body, doors);
            }
        }
    }

    /// Sets the most keys that are remembered. Readers of keys beyond it get an invalidation.
    pub fn set_max_keys(&self, most: usize, doors: &[Door]) {
        self.max_keys.store(most, Relaxed);
        self.lock().trim(most, doors);
    }

    /// One command writes these keys, in this order; the instance will name them in another order.
    pub fn note_order<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut tables = self.lock();
        for key in keys {
            tables.last_write += 1;
            let written = tables.last_write;
            if let Some(readers) = tables.readers.get_mut(key) {
                readers.written = written;
            }
        }
    }

    /// From now on, invalidations of these keys are held back until `end_changes`.
    pub fn begin_changes(&self, ticket: u64, keys: Vec<Vec<u8>>, owner: Option<(u64, u32)>) {
        let mut tables = self.lock();
        for (order, key) in keys.into_iter().enumerate() {
            let change = Change { ticket, order, owner, said: 0 };
            tables.changing.entry(key).or_insert(change);
        }
    }

    /// Sends them, in the order of the keys. The owner gets none, unless a key is gone, because it
    /// may have expired. What the owner has read after its changes stays remembered.
    pub fn end_changes(&self, ticket: u64, gone: &[Vec<u8>], read: &[Vec<u8>], doors: &[Door]) {
        let gone: HashSet<&[u8]> = gone.iter().map(Vec::as_slice).collect();
        let read: HashSet<&[u8]> = read.iter().map(Vec::as_slice).collect();
        let mut tables = self.lock();
        let is_ours = |_: &Vec<u8>, change: &mut Change| change.ticket == ticket;
        let mut ended: Vec<_> = tables.changing.extract_if(is_ours).collect();
        ended.retain(|(_, change)| change.said > 0);
        ended.sort_by_key(|(_, change)| change.order);
        let told = ended.iter().map(|(key, change)| {
            let owner = change.owner.filter(|&(_, times)| change.said <= times);
            let owner = owner.filter(|_| !gone.contains(key.as_slice()));
            (key.as_slice(), owner.map(|(id, _)| id))
        });
        let told: Vec<_> = told.collect();
        let has_read = |id, key: &[u8]| {
            tables.readers.get(key).is_some_and(|readers| readers.ids.contains(&id))
        };
        let stay: Vec<_> = told
            .iter()
            .filter_map(|&(key, owner)| owner.map(|id| (key, id)))
            .filter(|&(key, id)| read.contains(key) && has_read(id, key))
            .collect();
        tables.tell_of(&told, doors);
        for (key, id) in stay {
            tables.items += usize::from(tables.readers.add(key, id));
        }
    }

    /// An instance reports that these keys have changed; true if a client was notified.
    pub fn invalidate(&self, keys: &[&[u8]], doors: &[Door]) -> bool {
        let mut tables = self.lock();
        let before = tables.told;
        let mut now = Vec::new();
        for &key in keys {
            if let Some(change) = tables.changing.get_mut(key) {
                change.said += 1;
            } else {
                now.push((tables.readers.get(key).map_or(0, |readers| readers.written), key));
            }
        }
        now.sort_by_key(|&(written, _)| written);
        let now: Vec<_> = now.into_iter().map(|(_, key)| (key, None)).collect();
        tables.tell_of(&now, doors);
        tables.told > before
    }

    /// Any key may have changed.
    pub fn invalidate_all(&self, doors: &[Door]) {
        let mut tables = self.lock();
        let old = std::mem::take(&mut tables.readers);
        tables.items = 0;
        tables.noted.values_mut().for_each(|noted| noted.is_full = true);
        let ids: Vec<u64> = tables.clients.keys().copied().collect();
        for id in ids {
            tables.tell(id, None, doors);
        }
        drop(tables);
        discard(old);
    }

    /// For INFO.
    pub fn counts(&self) -> Counts {
        let tables = self.lock();
        (tables.clients.len(), tables.readers.len(), tables.items, tables.prefixes.len())
    }
}

impl Tables {
    fn trim(&mut self, most: usize, doors: &[Door]) {
        while most > 0 && self.readers.len() > most {
            let Some(key) = self.readers.any() else { break };
            self.tell_readers(&key, None, doors);
        }
    }

    /// Removes a client from the readers of a key; true if it was one.
    fn forget(&mut self, id: u64, key: &[u8]) -> bool {
        let Some(readers) = self.readers.get_mut(key) else { return false };
        let was_there = readers.ids.remove(&id);
        if readers.ids.is_empty() {
            self.readers.remove(key);
        }
        self.items -= usize::from(was_there);
        was_there
    }

    /// Sends invalidations of changed keys to all their readers but the owner of each change.
    fn tell_of(&mut self, changed: &[(&[u8], Option<u64>)], doors: &[Door]) {
        for noted in self.noted.values_mut() {
            noted.is_full |= noted.keys.len() + changed.len() > NOTED_MOST;
            if !noted.is_full {
                noted.keys.extend(changed.iter().map(|&(key, _)| key.to_vec()));
            }
        }
        for &(key, owner) in changed {
            self.tell_readers(key, owner, doors);
        }
        let prefixes = std::mem::take(&mut self.prefixes);
        for (prefix, ids) in &prefixes {
            let of_prefix = || changed.iter().filter(|(key, _)| key.starts_with(prefix));
            let Some(body) = names(of_prefix().map(|&(key, _)| key)) else { continue };
            for &id in ids {
                if of_prefix().all(|&(_, owner)| owner != Some(id)) {
                    self.tell(id, Some(&body), doors);
                    continue;
                }
                let others = of_prefix().filter(|&&(_, owner)| owner != Some(id));
                if let Some(body) = names(others.map(|&(key, _)| key)) {
                    self.tell(id, Some(&body), doors);
                }
            }
        }
        self.prefixes = prefixes;
    }

    fn tell_readers(&mut self, key: &[u8], owner: Option<u64>, doors: &[Door]) {
        let Some(readers) = self.readers.remove(key) else { return };
        self.items -= readers.ids.len();
        let Some(body) = names([key].into_iter()) else { return };
        for id in readers.ids.into_iter().filter(|&id| owner != Some(id)) {
            self.tell_reader(id, &body, doors);
        }
    }

    /// Notifies a reader of keys, unless it tracks prefixes by now.
    fn tell_reader(&mut self, id: u64, body: &Arc<[u8]>, doors: &[Door]) {
        if self.clients.get(&id).is_some_and(|tracker| tracker.prefixes.is_empty()) {
            self.tell(id, Some(body), doors);
        }
    }

    fn tell(&mut self, id: u64, body: Option<&Arc<[u8]>>, doors: &[Door]) {
        if let Some(tracker) = self.clients.get(&id) {
            let (origin, target) = (tracker.key, tracker.target);
            let body = body.cloned().or_else(|| target.map(|_| tracker.null.into()));
            let worker = target.unwrap_or(origin).worker;
            doors[worker].mailbox.post(Mail::Invalidate { origin, target, body });
            self.told += 1;
        }
    }
}

/// Frees up to a million keys, in a thread of its own so that no client waits.
fn discard(readers: ReadKeys) {
    if readers.len() > FREED_AT_ONCE {
        let thread = std::thread::Builder::new().name("discard".into());
        let _ = thread.spawn(move || drop(readers)); // without a thread, freed here
    }
}

/// The body that stands for all keys.
pub(crate) fn null(resp3: bool) -> &'static [u8] {
    if resp3 { b"_\r\n" } else { b"$-1\r\n" }
}

/// An array of keys; `None` without keys.
fn names<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Option<Arc<[u8]>> {
    let (mut count, mut bulks) = (0, Vec::new());
    for key in keys {
        push_bulk(&mut bulks, key);
        count += 1;
    }
    let mut body = Vec::new();
    push_array(&mut body, count);
    body.append(&mut bulks);
    (count > 0).then(|| body.into())
}
