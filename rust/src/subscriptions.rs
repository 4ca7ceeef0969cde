//! Who is subscribed to what: one registry of all workers, and each worker's own audience.
//!
//! ```text
//! PUBLISH ─► Registry (how many subscribers each worker has; one lock gives one order)
//!               └─► Mailbox<Message> of every worker that has some ─► Audience ─► client.out
//! ```
//! Invariant: a worker's subscribers of a name are counted in the registry as long as its audience
//! has them. Messages are posted under the registry's lock; who joins or leaves takes the messages
//! posted before under the same lock, so a message reaches exactly those whom its publisher counted.

use crate::channels::{Kind, Name};
use crate::glob;
use crate::mailbox::Mailbox;
use crate::number::push_u64;
use crate::pending_subscriptions::PendingSubscriptions;
use crate::request::push_bulk;
use crate::shared::{Door, ToCoordinator};
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Names by which keyspace events may be heard.
    of_events: AtomicUsize,
    /// Those of them that the instances are not subscribed to.
    pub pending: PendingSubscriptions,
}

type Table = HashMap<Name, Subscribers>;

/// Who is subscribed to a name.
#[derive(Debug)]
struct Subscribers {
    /// How many clients of each worker.
    counts: Vec<usize>,
    /// The instances are subscribed, too.
    is_upstream: bool,
    /// Its number while it is pending.
    pending: Option<u64>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, [Table; 3]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody might hear of keyspace events.
    #[inline]
    pub fn is_listened_to(&self) -> bool {
        self.of_events.load(Relaxed) > 0
    }

    /// Counts a client of a worker in. The coordinator hears of names that got their first subscriber.
    /// The messages that were posted before, and whether the instances are subscribed to all names.
    pub fn join(
        &self,
        kind: Kind,
        names: &[Name],
        worker: usize,
        doors: &[Door],
        coordinator: &Mailbox<ToCoordinator>,
    ) -> (Vec<Message>, bool) {
        let mut tables = self.lock();
        let table = &mut tables[kind as usize];
        let (mut are_upstream, mut changed) = (true, Vec::new());
        for name in names {
            let known = table.entry(name.clone()).or_insert_with(|| {
                let is_of_events = concerns_events(kind, name);
                self.of_events.fetch_add(usize::from(is_of_events), Relaxed);
                changed.push(name.to_vec());
                let pending = is_of_events.then(|| self.pending.add());
                Subscribers { counts: vec![0; doors.len()], is_upstream: false, pending }
            });
            known.counts[worker] += 1;
            are_upstream &= known.is_upstream;
        }
        if !changed.is_empty() {
            let names = changed;
            coordinator.post(ToCoordinator::Interest { kind, names, is_wanted: true });
        }
        (doors[worker].messages.take(), are_upstream)
    }

    /// The instances are subscribed to these names.
    pub fn are_upstream(&self, kind: Kind, names: &[Vec<u8>]) {
        let mut tables = self.lock();
        for name in names {
            if let Some(known) = tables[kind as usize].get_mut(name.as_slice()) {
                known.is_upstream = true;
                self.pending.remove(known.pending.take());
            }
        }
    }

    /// Counts a client of a worker out. The coordinator hears of names that lost their last subscriber.
    /// The messages that were posted before.
    pub fn leave(
        &self,
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
            let Some(Subscribers { counts, pending, .. }) = table.get_mut(name) else { continue };
            counts[worker] = counts[worker].saturating_sub(1);
            if counts.iter().all(|&count| count == 0) {
                self.pending.remove(pending.take());
                table.remove(name);
                self.of_events.fetch_sub(usize::from(concerns_events(kind, name)), Relaxed);
                changed.push(name.to_vec());
            }
        }
        if !changed.is_empty() {
            let names = changed;
            coordinator.post(ToCoordinator::Interest { kind, names, is_wanted: false });
        }
        doors[worker].messages.take()
    }

    /// Posts a client's message to every worker with subscribers; how many receive it, counting as
    /// Redis does: once for the channel and once for each matching pattern.
    pub fn publish(&self, kind: Kind, channel: &[u8], payload: &[u8], doors: &[Door]) -> usize {
        let tables = self.lock();
        let mut receivers = 0;
        if let Some((name, known)) = tables[kind as usize].get_key_value(channel) {
            let word: &[u8] = if kind == Kind::Shard { b"smessage" } else { b"message" };
            let message = Message::new(kind, name, &[word, channel, payload]);
            receivers += post(&message, &known.counts, doors);
        }
        if kind == Kind::Channel {
            for (pattern, known) in &tables[Kind::Pattern as usize] {
                if glob::matches(pattern, channel) {
                    let words: [&[u8]; 4] = [b"pmessage", pattern, channel, payload];
                    let message = Message::new(Kind::Pattern, pattern, &words);
                    receivers += post(&message, &known.counts, doors);
                }
            }
        }
        receivers
    }

    /// How many would receive a message.
    pub fn receivers(&self, kind: Kind, channel: &[u8]) -> usize {
        let tables = self.lock();
        let all = |kind: Kind| tables[kind as usize].iter();
        let patterns = all(Kind::Pattern)
            .filter(|(pattern, _)| kind == Kind::Channel && glob::matches(pattern, channel));
        let named = tables[kind as usize].get(channel);
        let known = named.into_iter().chain(patterns.map(|(_, known)| known));
        known.flat_map(|known| &known.counts).sum()
    }

    /// Posts messages that instances sent for one subscription each: its kind, its name, and the
    /// message behind its first byte.
    pub fn forward(&self, messages: &[(Kind, &[u8], &[u8])], doors: &[Door]) {
        let tables = self.lock();
        for &(kind, name, frame) in messages {
            // Nobody any more: the last one left while it was on its way.
            if let Some((name, known)) = tables[kind as usize].get_key_value(name) {
                let message = Message { kind, name: name.clone(), frame: frame.into() };
                post(&message, &known.counts, doors);
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
        self.lock()[kind as usize].get(name).map_or(0, |known| known.counts.iter().sum())
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
    /// Names, and their places in the order of subscription.
    names: [HashMap<Name, u64>; 3],
    last: u64,
}

impl Subscriptions {
    fn names(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        self.names[kind as usize].keys()
    }

    /// Whether it is subscribed to a name.
    #[must_use]
    pub fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind as usize].contains_key(name)
    }

    /// How many names of a kind it is subscribed to.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.names[kind as usize].len()
    }

    /// The names of a kind, in the order of subscription.
    #[must_use]
    pub fn in_order(&self, kind: Kind) -> Vec<Name> {
        let mut names: Vec<(&Name, &u64)> = self.names[kind as usize].iter().collect();
        names.sort_by_key(|(_, place)| **place);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Adds a name; false if it is known.
    pub fn add(&mut self, kind: Kind, name: &Name) -> bool {
        self.last += 1;
        let names = &mut self.names[kind as usize];
        let is_new = !names.contains_key(name);
        if is_new {
            names.insert(name.clone(), self.last);
        }
        is_new
    }

    /// Removes a name; false if it is not known.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind as usize].remove(name).is_some()
    }

    /// Whether a user may listen to all of it whose rules have these patterns of channels; patterns
    /// are allowed as they are written, as servers do it.
    #[must_use]
    pub fn are_within(&self, allowed: &[Vec<u8>]) -> bool {
        let matches = |name: &Name| allowed.iter().any(|rule| glob::matches(rule, name));
        self.names(Kind::Channel).chain(self.names(Kind::Shard)).all(matches)
            && self.names(Kind::Pattern).all(|name| allowed.iter().any(|rule| rule[..] == name[..]))
    }

    /// The number that a confirmation shows: sharded channels are counted by themselves.
    #[must_use]
    pub fn shown(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.count(Kind::Shard),
            _ => self.count(Kind::Channel) + self.count(Kind::Pattern),
        }
    }

    /// True if there is none of any kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(HashMap::is_empty)
    }
}

/// Whether keyspace events may be heard by this name.
#[must_use]
pub fn concerns_events(kind: Kind, name: &[u8]) -> bool {
    const EVENTS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];
    let special = match kind {
        Kind::Channel => None,
        Kind::Pattern => name.iter().position(|byte| b"*?[\\".contains(byte)),
        Kind::Shard => return false,
    };
    EVENTS.iter().any(|event| match special.map(|at| &name[..at]) {
        None => name.starts_with(event),
        Some(fixed) => fixed.starts_with(event) || event.starts_with(fixed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_concerns_events_if_it_may_match_one() {
        for name in
            [&b"*"[..], b"__key*", b"__keyevent@0__:set", b"__keyspace@[01]__:*", b"_?*", b""]
        {
            let is_pattern = name != b"";
            assert_eq!(concerns_events(Kind::Pattern, name), is_pattern, "{name:?}");
        }
        assert!(concerns_events(Kind::Channel, b"__keyspace@3__:key"));
        assert!(!concerns_events(Kind::Channel, b"__key*"));
        assert!(!concerns_events(Kind::Pattern, b"news.*"));
        assert!(!concerns_events(Kind::Shard, b"__keyspace@3__:key"));
    }
}
