//! Who is subscribed to what: one registry of all workers, and each worker's own audience.
//!
//! ```text
//! PUBLISH ─► Registry (how many subscribers each worker has; one lock gives one order)
//!               └─► Mailbox<Message> of every worker that has some ─► Audience ─► client.out
//! ```
//! Invariant: a worker's subscribers of a name are counted in the registry as long as its audience
//! has them. Messages are posted under the registry's lock; who joins or leaves takes the messages
//! posted before under the same lock, so a message reaches exactly those whom its publisher counted.

use crate::glob;
use crate::number::push_u64;
use crate::request::push_bulk;
use crate::shared::{Door, Mailbox, ToCoordinator};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a subscription names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

/// All kinds; a kind is its own place in arrays.
pub const KINDS: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

/// The name of a channel or a pattern.
pub type Name = Arc<[u8]>;

/// A message on its way to the subscribers of one name.
#[derive(Debug, Clone)]
pub struct Message {
    /// What kind of name.
    pub kind: Kind,
    /// The subscription it is for.
    pub name: Name,
    /// The message behind its first byte, which is `>` in RESP3 and `*` in RESP2.
    pub frame: Arc<[u8]>,
}

/// How many subscribers each name has, by worker.
#[derive(Debug, Default)]
pub struct Registry {
    tables: Mutex<[Table; 3]>,
}

type Table = HashMap<Name, Vec<usize>>;

/// Subscriptions that come and go.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// One more subscriber; upstream subscriptions were made for it.
    Join,
    /// One less.
    Leave,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, [Table; 3]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a client of a worker in, if every name has a subscriber already; else changes
    /// nothing. The messages that were posted before.
    pub fn join_known(
        &self,
        kind: Kind,
        names: &[Name],
        worker: usize,
        inbox: &Mailbox<Message>,
    ) -> Option<Vec<Message>> {
        let mut tables = self.lock();
        let table = &mut tables[kind as usize];
        if !names.iter().all(|name| table.contains_key(name)) {
            return None;
        }
        for name in names {
            table.get_mut(name)?[worker] += 1;
        }
        Some(inbox.take())
    }

    /// Counts a client of a worker in or out. The coordinator hears of names that got their first
    /// or lost their last subscriber. The messages that were posted before.
    pub fn change(
        &self,
        change: Change,
        kind: Kind,
        names: &[Name],
        worker: usize,
        doors: &[Door],
        coordinator: &Mailbox<ToCoordinator>,
    ) -> Vec<Message> {
        let mut tables = self.lock();
        let table = &mut tables[kind as usize];
        let mut changed = Vec::new();
        for name in names {
            let is_changed = match change {
                Change::Join => {
                    let is_first = !table.contains_key(name);
                    let counts = table.entry(name.clone()).or_insert_with(|| vec![0; doors.len()]);
                    counts[worker] += 1;
                    is_first
                }
                Change::Leave => {
                    let Some(counts) = table.get_mut(name) else { continue };
                    counts[worker] = counts[worker].saturating_sub(1);
                    let is_last = counts.iter().all(|&count| count == 0);
                    if is_last {
                        table.remove(name);
                    }
                    is_last
                }
            };
            if is_changed {
                changed.push(name.to_vec());
            }
        }
        if !changed.is_empty() {
            let is_wanted = matches!(change, Change::Join);
            coordinator.post(ToCoordinator::Interest { kind, names: changed, is_wanted });
        }
        doors[worker].messages.take()
    }

    /// Posts a client's message to every worker with subscribers; how many receive it, counting as
    /// Redis does: once for the channel and once for each matching pattern.
    pub fn publish(&self, kind: Kind, channel: &[u8], payload: &[u8], doors: &[Door]) -> usize {
        let tables = self.lock();
        let mut receivers = 0;
        if let Some((name, counts)) = tables[kind as usize].get_key_value(channel) {
            let word: &[u8] = if kind == Kind::Shard { b"smessage" } else { b"message" };
            let message = Message::new(kind, name, &[word, channel, payload]);
            receivers += post(&message, counts, doors);
        }
        if kind == Kind::Channel {
            for (pattern, counts) in &tables[Kind::Pattern as usize] {
                if glob::matches(pattern, channel) {
                    let words: [&[u8]; 4] = [b"pmessage", pattern, channel, payload];
                    let message = Message::new(Kind::Pattern, pattern, &words);
                    receivers += post(&message, counts, doors);
                }
            }
        }
        receivers
    }

    /// Posts messages that instances sent for one subscription each: its kind, its name, and the
    /// message behind its first byte.
    pub fn forward(&self, messages: &[(Kind, &[u8], &[u8])], doors: &[Door]) {
        let tables = self.lock();
        for &(kind, name, frame) in messages {
            // Nobody any more: the last one left while it was on its way.
            if let Some((name, counts)) = tables[kind as usize].get_key_value(name) {
                let message = Message { kind, name: name.clone(), frame: frame.into() };
                post(&message, counts, doors);
            }
        }
    }

    /// The names that match a pattern, or all.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        let tables = self.lock();
        let names = tables[kind as usize].keys();
        names.filter(|name| pattern.is_none_or(|glob| glob::matches(glob, name))).cloned().collect()
    }

    /// How many subscribers a name has.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.lock()[kind as usize].get(name).map_or(0, |counts| counts.iter().sum())
    }

    /// How many names there are.
    pub fn len(&self, kind: Kind) -> usize {
        self.lock()[kind as usize].len()
    }
}

fn post(message: &Message, counts: &[usize], doors: &[Door]) -> usize {
    for (count, door) in counts.iter().zip(doors) {
        if *count > 0 {
            door.messages.post(message.clone());
        }
    }
    counts.iter().sum()
}

impl Message {
    fn new(kind: Kind, name: &Name, words: &[&[u8]]) -> Self {
        let mut frame = Vec::with_capacity(64 + words.iter().map(|word| word.len()).sum::<usize>());
        push_u64(&mut frame, words.len() as u64);
        frame.extend_from_slice(b"\r\n");
        for word in words {
            push_bulk(&mut frame, word);
        }
        Self { kind, name: name.clone(), frame: frame.into() }
    }
}

/// The subscribers of one worker: places of its clients.
#[derive(Debug, Default)]
pub struct Audience {
    tables: [HashMap<Name, Vec<usize>>; 3],
    /// Clients with at least one subscription.
    pub clients: usize,
}

impl Audience {
    /// Places of the subscribers of a name.
    #[must_use]
    pub fn of(&self, kind: Kind, name: &[u8]) -> &[usize] {
        self.tables[kind as usize].get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a subscriber.
    pub fn add(&mut self, kind: Kind, name: &Name, place: usize) {
        self.tables[kind as usize].entry(name.clone()).or_default().push(place);
    }

    /// Removes one.
    pub fn remove(&mut self, kind: Kind, name: &[u8], place: usize) {
        let table = &mut self.tables[kind as usize];
        if let Some(places) = table.get_mut(name) {
            places.retain(|&known| known != place);
            if places.is_empty() {
                table.remove(name);
            }
        }
    }
}

/// What one client is subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: [HashSet<Name>; 3],
}

impl Subscriptions {
    /// The names of a kind.
    #[must_use]
    pub fn names(&self, kind: Kind) -> &HashSet<Name> {
        &self.names[kind as usize]
    }

    /// The same, to change them.
    pub fn names_mut(&mut self, kind: Kind) -> &mut HashSet<Name> {
        &mut self.names[kind as usize]
    }

    /// Whether a user may listen to all of it whose rules have these patterns of channels; patterns
    /// are allowed as they are written, as servers do it.
    #[must_use]
    pub fn are_within(&self, allowed: &[Vec<u8>]) -> bool {
        let matches = |name: &Name| allowed.iter().any(|rule| glob::matches(rule, name));
        self.names(Kind::Channel).iter().chain(self.names(Kind::Shard)).all(matches)
            && self
                .names(Kind::Pattern)
                .iter()
                .all(|name| allowed.iter().any(|rule| rule[..] == name[..]))
    }

    /// The number that a confirmation shows: sharded channels are counted by themselves.
    #[must_use]
    pub fn shown(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.names(Kind::Shard).len(),
            _ => self.names(Kind::Channel).len() + self.names(Kind::Pattern).len(),
        }
    }

    /// True if there is none of any kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(HashSet::is_empty)
    }
}
