//! The subscriptions of one client.

use crate::base::glob;
use crate::catalog::channels::{Kind, Name};
use std::collections::HashMap;

/// The subscriptions of one client.
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

    /// True if the client is subscribed to a name.
    #[must_use]
    pub fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind as usize].contains_key(name)
    }

    /// The number of subscriptions of a kind.
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

    /// Adds a name; false if it was there.
    pub fn add(&mut self, kind: Kind, name: &Name) -> bool {
        self.last += 1;
        let names = &mut self.names[kind as usize];
        let is_new = !names.contains_key(name);
        if is_new {
            names.insert(name.clone(), self.last);
        }
        is_new
    }

    /// Removes a name; false if it was not there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind as usize].remove(name).is_some()
    }

    /// True if a user with these channel patterns may keep all these subscriptions. As in the
    /// servers, a subscribed pattern must equal an allowed one literally.
    #[must_use]
    pub fn are_within(&self, allowed: &[Vec<u8>]) -> bool {
        let matches = |name: &Name| allowed.iter().any(|rule| glob::matches(rule, name));
        self.names(Kind::Channel).chain(self.names(Kind::Shard)).all(matches)
            && self.names(Kind::Pattern).all(|name| allowed.iter().any(|rule| rule[..] == name[..]))
    }

    /// The number in a confirmation: sharded channels are counted separately.
    #[must_use]
    pub fn shown(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.count(Kind::Shard),
            _ => self.count(Kind::Channel) + self.count(Kind::Pattern),
        }
    }

    /// True if there are no subscriptions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(HashMap::is_empty)
    }
}
