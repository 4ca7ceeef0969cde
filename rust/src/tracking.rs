//! Client-side caching: who is to be told when a key changes.
//!
//! ```text
//! take ─► Tracking::remember (before the read is sent)
//! instance ─► coordinator ─► Tracking::invalidate ─► Mail::Invalidate ─► client.out
//! ```
//! Invariant: a key is remembered before the instance sees the read, and its invalidation is written
//! behind everything the client is owed by then. So whoever read an old value hears of the new one
//! later than of the old.

use crate::client::{Client, Closing, Gate, Owed};
use crate::command::{Row, Table};
use crate::keys;
use crate::number::push_u64;
use crate::request::{Args, Cut, Request, push_array, push_bulk};
use crate::shared::{ClientKey, Door, Mail, ToCoordinator};
use crate::worker::Worker;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// These may wait for long, and what they answer then is newer than an invalidation of now.
const BLOCKING: [&[u8]; 11] = [
    b"blpop",
    b"brpop",
    b"blmove",
    b"brpoplpush",
    b"blmpop",
    b"bzpopmin",
    b"bzpopmax",
    b"bzmpop",
    b"xread",
    b"xreadgroup",
    b"wait",
];

/// How a client tracks, as CLIENT TRACKING said.
#[derive(Debug, Clone)]
pub struct Mode {
    /// Every change of a key with one of these prefixes; none in the default mode, where it is
    /// told of keys it has read.
    pub prefixes: Option<Vec<Vec<u8>>>,
    /// Only what follows CLIENT CACHING YES.
    pub opt_in: bool,
    /// All but what follows CLIENT CACHING NO.
    pub opt_out: bool,
    /// Another client is told instead: its id, and who that is.
    pub redirect: Option<(u64, ClientKey)>,
    /// That one is gone.
    pub is_broken: bool,
    /// CLIENT CACHING was the last command.
    pub caching: bool,
}

impl Mode {
    fn remembers(&self) -> bool {
        self.prefixes.is_none() && (!self.opt_in || self.caching) && !(self.opt_out && self.caching)
    }
}

/// All clients that track, and what they have read.
#[derive(Debug)]
pub struct Tracking {
    tables: Mutex<Tables>,
    /// Keys remembered at most; 0: no limit.
    pub max_keys: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tables {
    clients: BTreeMap<u64, Tracker>,
    readers: HashMap<Vec<u8>, HashSet<u64>>,
    items: usize,
    prefixes: BTreeMap<Vec<u8>, HashSet<u64>>,
}

#[derive(Debug)]
struct Tracker {
    key: ClientKey,
    target: Option<ClientKey>,
    prefixes: Vec<Vec<u8>>,
    /// What stands for all keys: of its own protocol, even if another client is told.
    null: &'static [u8],
}

/// The number of clients that track, and of keys, readers of keys, and prefixes.
pub type Counts = (usize, usize, usize, usize);

impl Default for Tracking {
    fn default() -> Self {
        Self { tables: Mutex::default(), max_keys: AtomicUsize::new(1_000_000) }
    }
}

impl Tracking {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to track for a client, or changes how.
    pub fn set(&self, id: u64, key: ClientKey, mode: &Mode, resp3: bool) {
        let mut tables = self.lock();
        let target = mode.redirect.map(|(_, target)| target);
        let prefixes = mode.prefixes.clone().unwrap_or_default();
        for prefix in &prefixes {
            tables.prefixes.entry(prefix.clone()).or_default().insert(id);
        }
        let null = null(resp3);
        tables.clients.insert(id, Tracker { key, target, prefixes, null });
    }

    /// Ends it. What a client has read is forgotten when it changes, as by the server.
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
        if tables.clients.is_empty() {
            *tables = Tables::default(); // nobody listens to the instances any more
        }
    }

    /// A client is about to read these keys.
    fn remember<'a>(&self, id: u64, keys: impl Iterator<Item = &'a [u8]>, doors: &[Door]) {
        let mut tables = self.lock();
        for key in keys {
            let is_new = match tables.readers.get_mut(key) {
                Some(ids) => ids.insert(id),
                None => tables.readers.insert(key.to_vec(), HashSet::from([id])).is_none(),
            };
            tables.items += usize::from(is_new);
        }
        let most = self.max_keys.load(Relaxed);
        while most > 0 && tables.readers.len() > most {
            let Some(key) = tables.readers.keys().next().cloned() else { break };
            tables.tell_readers(&key, doors);
        }
    }

    /// These keys have changed.
    pub fn invalidate(&self, keys: &[&[u8]], doors: &[Door]) {
        let mut tables = self.lock();
        for key in keys {
            tables.tell_readers(key, doors);
        }
        for (prefix, ids) in &tables.prefixes {
            let changed: Vec<&[u8]> =
                keys.iter().filter(|key| key.starts_with(prefix)).copied().collect();
            if !changed.is_empty() {
                let body = names(&changed);
                for id in ids {
                    tables.tell(*id, Some(&body), doors);
                }
            }
        }
    }

    /// Any key may have changed.
    pub fn invalidate_all(&self, doors: &[Door]) {
        let mut tables = self.lock();
        tables.readers.clear();
        tables.items = 0;
        for id in tables.clients.keys() {
            tables.tell(*id, None, doors);
        }
    }

    /// For INFO.
    pub fn counts(&self) -> Counts {
        let tables = self.lock();
        (tables.clients.len(), tables.readers.len(), tables.items, tables.prefixes.len())
    }
}

impl Tables {
    fn tell_readers(&mut self, key: &[u8], doors: &[Door]) {
        let Some(ids) = self.readers.remove(key) else { return };
        self.items -= ids.len();
        let body = names(&[key]);
        for id in ids {
            // It may track otherwise by now.
            if self.clients.get(&id).is_some_and(|tracker| tracker.prefixes.is_empty()) {
                self.tell(id, Some(&body), doors);
            }
        }
    }

    fn tell(&self, id: u64, body: Option<&Arc<[u8]>>, doors: &[Door]) {
        if let Some(tracker) = self.clients.get(&id) {
            let (origin, target) = (tracker.key, tracker.target);
            let body = body.cloned().or_else(|| target.map(|_| tracker.null.into()));
            let worker = target.unwrap_or(origin).worker;
            doors[worker].mailbox.post(Mail::Invalidate { origin, target, body });
        }
    }
}

fn null(resp3: bool) -> &'static [u8] {
    if resp3 { b"_\r\n" } else { b"$-1\r\n" }
}

fn names(keys: &[&[u8]]) -> Arc<[u8]> {
    let mut body = Vec::new();
    push_array(&mut body, keys.len());
    for key in keys {
        push_bulk(&mut body, key);
    }
    body.into()
}

impl Worker {
    /// CLIENT TRACKING ON with its options, or OFF.
    pub(crate) fn track(&mut self, key: ClientKey, mut mode: Option<Box<Mode>>) {
        if !self.is_here(key) {
            return;
        }
        let id = self.clients[key.place].session.id;
        match &mode {
            Some(mode) => self.shared.tracking.set(id, key, mode, self.is_resp3(key.place)),
            None => self.shared.tracking.end(id),
        }
        let client = &mut self.clients[key.place];
        if let (Some(mode), Some(before)) = (&mut mode, &client.session.tracking) {
            mode.is_broken = mode.caching && before.is_broken; // CLIENT CACHING changes no more
        }
        client.is_tracking = mode.is_some();
        client.session.tracking = mode;
    }

    /// A client that tracks resets or leaves; the coordinator must hear of it.
    pub(crate) fn end_tracking(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if std::mem::take(&mut client.is_tracking) {
            client.session.tracking = None;
            self.shared.tracking.end(client.session.id);
            self.shared.coordinator.post(ToCoordinator::Gone(self.key(place)));
        }
    }

    fn is_here(&self, key: ClientKey) -> bool {
        self.clients.get(key.place).is_some_and(|client| {
            client.generation == key.generation && client.closing != Closing::Now
        })
    }

    /// A client that tracks runs a command: remembers what it reads.
    pub(crate) fn remember(&mut self, place: usize, row: &Row, args: Args) {
        let client = &self.clients[place];
        if client.executing.is_some() || row.writes || !row.touches_keys {
            return; // EXEC has remembered already
        }
        if client.session.tracking.as_ref().is_some_and(|mode| mode.remembers()) {
            let keys = keys::all(&row.keys, args).map(|at| args.get(at));
            self.shared.tracking.remember(client.session.id, keys, &self.shared.doors);
        }
    }

    /// The same for all commands of a transaction.
    pub(crate) fn remember_queued(&mut self, place: usize, mut commands: &[u8], table: &Table) {
        let mut request = Request::default();
        while !commands.is_empty()
            && let Ok(Cut::Complete(length)) = request.cut(commands, true)
        {
            let args = request.args(&commands[..length]);
            if let Some(row) = table.row_of(args) {
                self.remember(place, row, args);
            }
            request.reset();
            commands = &commands[length..];
        }
    }

    /// CLIENT CACHING holds for one command, or one transaction.
    pub(crate) fn end_caching(&mut self, place: usize, row: &Row) {
        let client = &mut self.clients[place];
        if client.multi.is_none()
            && client.executing.is_none()
            && !row.name.starts_with(b"client")
            && let Some(mode) = &mut client.session.tracking
        {
            mode.caching = false;
        }
    }

    /// Tells a client, or whom it named instead, of changed keys; `None`: of all.
    pub(crate) fn tell_invalid(
        &mut self,
        origin: ClientKey,
        target: Option<ClientKey>,
        body: Option<&[u8]>,
    ) {
        let key = target.unwrap_or(origin);
        if !self.is_here(key) {
            if target.is_some() {
                self.shared.doors[origin.worker].mailbox.post(Mail::BrokenRedirect(origin));
            }
            return;
        }
        let resp3 = self.is_resp3(key.place);
        let mut frame = Vec::new();
        if resp3 {
            frame.extend_from_slice(b">2\r\n$10\r\ninvalidate\r\n");
        } else if target.is_some() && self.clients[key.place].subscriptions.is_some() {
            frame.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");
        } else {
            return;
        }
        frame.extend_from_slice(body.unwrap_or(null(resp3)));
        self.push_invalidation(key.place, frame);
    }

    /// The client that should be told instead is gone.
    pub(crate) fn redirect_is_broken(&mut self, key: ClientKey) {
        if !self.is_here(key) {
            return;
        }
        let resp3 = self.is_resp3(key.place);
        let Some(mode) = &mut self.clients[key.place].session.tracking else { return };
        let Some((id, _)) = mode.redirect else { return };
        mode.is_broken = true;
        if resp3 {
            let mut frame = b">2\r\n$21\r\ntracking-redir-broken\r\n:".to_vec();
            push_u64(&mut frame, id);
            frame.extend_from_slice(b"\r\n");
            self.push_invalidation(key.place, frame);
        }
    }

    fn push_invalidation(&mut self, place: usize, frame: Vec<u8>) {
        let client = &mut self.clients[place];
        if waits(client, &self.shared.table) {
            client.push(frame[0], &frame[1..]);
        } else {
            client.push_behind(frame);
        }
        self.mark_dirty(place);
    }
}

fn waits(client: &Client, table: &Table) -> bool {
    match client.owed.front() {
        Some(Owed::Waiting(row)) if client.gate == Gate::Coordinator => {
            BLOCKING.contains(&table.row(*row as usize).name.as_slice())
        }
        _ => false,
    }
}
