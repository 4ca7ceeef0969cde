//! All subscriptions: one registry for all workers, and an audience for each worker.
//!
//! ```text
//! PUBLISH ─► Registry (how many subscribers each worker has; one lock gives one order)
//!               └─► Mailbox<Message> of every worker that has some ─► Audience ─► client.out
//! ```
//! Invariant: the registry counts a worker's subscribers of a name as long as its audience has
//! them. Messages are posted while the registry is locked. A client that joins or leaves takes the
//! messages that were posted before, under the same lock. So a message reaches exactly the
//! subscribers that its publisher counted.

use crate::base::glob;
use crate::catalog::channels::{Kind, Name, concerns_events};
use crate::tables::message::Message;
use crate::tables::pending_subscriptions::PendingSubscriptions;
use crate::threads::letters::{Door, ToCoordinator};
use crate::threads::mailbox::Mailbox;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of subscribers of each name, by worker.
#[derive(Debug, Default)]
pub struct Registry {
    tables: Mutex<[Table; 3]>,
    /// The number of names that can match keyspace events.
    of_events: AtomicUsize,
    /// Those of them that the instances are not subscribed to yet.
    pub pending: PendingSubscriptions,
}

type Table = HashMap<Name, Subscribers>;

/// The subscribers of a name.
#[derive(Debug)]
struct Subscribers {
    /// The number of clients, by worker.
    counts: Vec<usize>,
    /// The instances are subscribed to this name, too.
    is_upstream: bool,
    /// Its number while the subscription is pending.
    pending: Option<u64>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, [Table; 3]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a client is subscribed to a name that can match keyspace events.
    #[inline]
    pub fn is_listened_to(&self) -> bool {
        self.of_events.load(Relaxed) > 0
    }

    /// Adds a client of a worker. The coordinator is notified of names that got their first
    /// subscriber. Returns the messages that were posted before, and whether the instances are
    /// subscribed to all the names.
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

    /// Removes a client of a worker. The coordinator is notified of names that lost their last
    /// subscriber. Returns the messages that were posted before.
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

    /// Posts a client's message to every worker that has subscribers. Returns the number of
    /// receivers as Redis counts them: once for the channel and once for each matching pattern.
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

    /// The number of receivers that a message would have.
    pub fn receivers(&self, kind: Kind, channel: &[u8]) -> usize {
        let tables = self.lock();
        let all = |kind: Kind| tables[kind as usize].iter();
        let patterns = all(Kind::Pattern)
            .filter(|(pattern, _)| kind == Kind::Channel && glob::matches(pattern, channel));
        let named = tables[kind as usize].get(channel);
        let known = named.into_iter().chain(patterns.map(|(_, known)| known));
        known.flat_map(|known| &known.counts).sum()
    }

    /// Posts messages of instances, each for one subscription: its kind, its name, and the message
    /// without its first byte.
    pub fn forward(&self, messages: &[(Kind, &[u8], &[u8])], doors: &[Door]) {
        let tables = self.lock();
        for &(kind, name, frame) in messages {
            // No entry if the last subscriber left while the message was on its way.
            if let Some((name, known)) = tables[kind as usize].get_key_value(name) {
                let message = Message { kind, name: name.clone(), frame: frame.into() };
                post(&message, &known.counts, doors);
            }
        }
    }

    /// The names that match a pattern; all without a pattern.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        let tables = self.lock();
        let names = tables[kind as usize].keys();
        names.filter(|name| pattern.is_none_or(|glob| glob::matches(glob, name))).cloned().collect()
    }

    /// The number of subscribers of a name.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.lock()[kind as usize].get(name).map_or(0, |known| known.counts.iter().sum())
    }

    /// The number of names.
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
