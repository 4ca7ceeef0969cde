//! Messages that are kept until their commands over several instances have run: their events, in
//! order, and the expirations of their keys meanwhile.
//!
//! A key that a command has lent may expire before the command's result is written back. Its
//! instance publishes that at once, but the event is sent with those of the command, and not at all
//! if the command has deleted the key or extended its time.

use crate::catalog::channels::Kind;
use std::collections::{HashMap, HashSet};

/// What is kept, by the numbers of commands.
#[derive(Debug, Default)]
pub struct KeptMessages {
    commands: HashMap<u64, Kept>,
}

/// What is kept of one command.
#[derive(Debug, Default)]
struct Kept {
    /// Each with its step.
    told: Vec<(u64, What)>,
    /// By database and key: whether the command that writes the key decides what is published.
    lent: HashMap<(u64, Vec<u8>), bool>,
    /// The expirations that instances have reported.
    ended: Vec<End>,
    /// The events of keys that had expired before the command reached them.
    firsts: Vec<((u64, Vec<u8>), What)>,
    /// The instances that have written their parts.
    written: HashSet<usize>,
}

/// The event that a key has expired.
#[derive(Debug)]
struct End {
    name: (u64, Vec<u8>),
    /// It is about the value that was written, not the one that was lent.
    is_new: bool,
    what: What,
}

/// An event or a message.
#[derive(Debug)]
pub enum What {
    /// A message for all subscribers of a channel.
    Published(Kind, Vec<u8>, Vec<u8>),
    /// A message of a script: its subscription, and the message for that.
    Heard(Kind, Vec<u8>, Vec<u8>),
}

impl What {
    /// True if it is an event of this key.
    fn concerns(&self, db: u64, key: &[u8]) -> bool {
        let Self::Published(_, channel, payload) = self else { return false };
        let mut start = format!("__keyevent@{db}__:").into_bytes();
        if channel.starts_with(&start) {
            return payload == key;
        }
        start.splice(..10, *b"__keyspace");
        channel.strip_prefix(start.as_slice()) == Some(key)
    }
}

impl KeptMessages {
    /// From now on, messages marked with this number are kept.
    pub fn keep(&mut self, id: u64) {
        self.commands.insert(id, Kept::default());
    }

    /// Adds an event or a message.
    pub fn add(&mut self, id: u64, step: u64, what: What) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.told.push((step, what));
        }
    }

    /// Adds the event that a key has expired, after all others.
    pub fn add_end(&mut self, id: u64, what: What) {
        self.add(id, u64::MAX, what);
    }

    /// A lent key had expired before the command reached it: that event precedes the key's other
    /// ones. `what` is used if the instance does not report it and its value is overwritten.
    pub fn add_first(&mut self, id: u64, db: u64, key: Vec<u8>, what: What) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.firsts.push(((db, key), what));
        }
    }

    /// A command lends these keys.
    pub fn lend(&mut self, id: u64, db: u64, keys: Vec<Vec<u8>>) {
        if let Some(kept) = self.commands.get_mut(&id) {
            for key in keys {
                kept.lent.entry((db, key)).or_default();
            }
        }
    }

    /// The command writes this key: earlier expirations at its instance are not published.
    pub fn settle(&mut self, id: u64, db: u64, key: Vec<u8>) {
        let lent = self.commands.get_mut(&id).and_then(|one| one.lent.get_mut(&(db, key)));
        if let Some(is_settled) = lent {
            *is_settled = true;
        }
    }

    /// An instance has written its part: later expirations there are those of the written values.
    pub fn written(&mut self, id: u64, instance: usize) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.written.insert(instance);
        }
    }

    /// A key has expired; true if a command has lent it and will publish the event. `what` is that
    /// event, or `None` if it comes once more.
    pub fn expired(
        &mut self,
        instance: usize,
        (db, key): (u64, &[u8]),
        what: Option<What>,
    ) -> bool {
        let name = (db, key.to_vec());
        let Some(kept) = self.commands.values_mut().find(|one| one.lent.contains_key(&name)) else {
            return false;
        };
        let is_new = kept.written.contains(&instance);
        kept.ended.extend(what.map(|what| End { name, is_new, what }));
        true
    }

    /// A key was not lent after all: the events that were kept of it.
    pub(crate) fn give_back(&mut self, id: u64, name: &(u64, Vec<u8>)) -> Vec<What> {
        let Some(kept) = self.commands.get_mut(&id) else { return Vec::new() };
        kept.lent.remove(name);
        kept.ended.extract_if(.., |end| end.name == *name).map(|end| end.what).collect()
    }

    /// Ends a command: what was kept, in order, and the other expirations.
    pub(crate) fn end(&mut self, id: u64) -> (Vec<(u64, What)>, Vec<What>) {
        let mut kept = self.commands.remove(&id).unwrap_or_default();
        kept.told.sort_by_key(|(step, _)| *step);
        let is_settled = |name: &(u64, Vec<u8>)| kept.lent.get(name) == Some(&true);
        while let Some((name, _)) = kept.firsts.first() {
            let name = name.clone();
            let ours: Vec<_> = kept.firsts.extract_if(.., |(other, _)| *other == name).collect();
            let is_told = |end: &mut End| end.name == name && !end.is_new;
            let mut said: Vec<_> = kept.ended.extract_if(.., is_told).map(|end| end.what).collect();
            if said.is_empty() && is_settled(&name) {
                said.extend(ours.into_iter().map(|(_, what)| what));
            }
            let place = kept.told.iter().position(|(_, one)| one.concerns(name.0, &name.1));
            let at = place.unwrap_or(kept.told.len());
            kept.told.splice(at..at, said.into_iter().map(|what| (0, what)));
        }
        let ended = kept.ended.into_iter().filter(|end| end.is_new || !is_settled(&end.name));
        (kept.told, ended.map(|end| end.what).collect())
    }
}
