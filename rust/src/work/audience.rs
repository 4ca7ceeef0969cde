//! A worker's subscribers, by the names that they are subscribed to.

use crate::catalog::channels::{Kind, Name};
use std::collections::HashMap;

/// The subscribers of one worker: places of its clients.
#[derive(Debug, Default)]
pub struct Audience {
    tables: [HashMap<Name, Vec<usize>>; 3],
    /// The number of clients with at least one subscription.
    pub clients: usize,
}

impl Audience {
    /// The places of the subscribers of a name.
    #[must_use]
    pub fn of(&self, kind: Kind, name: &[u8]) -> &[usize] {
        self.tables[kind as usize].get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a subscriber.
    pub fn add(&mut self, kind: Kind, name: &Name, place: usize) {
        self.tables[kind as usize].entry(name.clone()).or_default().push(place);
    }

    /// Removes a subscriber.
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
