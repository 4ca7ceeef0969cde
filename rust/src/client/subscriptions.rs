//! What one client is subscribed to.

use crate::base::glob;
use crate::catalog::channels::{Kind, Name};
use std::collections::HashMap;

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
