//! Keys for which clients wait, as one worker sees them.
//!
//! The clients themselves wait in the coordinator. A command that may give them something goes
//! there, too, so that they are served before anybody sees what it has written.

use crate::command::{Route, Row};
use crate::keys;
use crate::request::Args;
use crate::worker::Worker;
use std::collections::{HashMap, HashSet};

/// The keys, by database.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    keys: HashMap<u32, HashSet<Vec<u8>>>,
}

impl Waited {
    pub(crate) fn add(&mut self, db: u32, key: Vec<u8>) {
        self.keys.entry(db).or_default().insert(key);
    }

    pub(crate) fn remove(&mut self, db: u32, key: &[u8]) {
        if let Some(keys) = self.keys.get_mut(&db) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&db);
            }
        }
    }

    fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.keys.get(&db).is_some_and(|keys| keys.contains(key))
    }

    /// Whether one of these is written and waited for.
    pub(crate) fn any(&self, keys: &[(u32, Vec<u8>, bool)]) -> bool {
        !self.keys.is_empty()
            && keys.iter().any(|(db, key, writes)| *writes && self.contains(*db, key))
    }
}

impl Worker {
    /// Whether someone waits for a key of this command.
    #[inline]
    pub(crate) fn ends_a_wait(&self, place: usize, row: &Row, args: Args) -> bool {
        !self.waited.keys.is_empty() && self.names_a_waited_key(place, row, args)
    }

    #[cold]
    fn names_a_waited_key(&self, place: usize, row: &Row, args: Args) -> bool {
        let client = &self.clients[place];
        if client.executing.is_some() || !matches!(row.route, Route::Keys | Route::Split(_)) {
            return false; // the coordinator runs it, or its transaction, already
        }
        if row.name == b"move" || row.name == b"copy" {
            return true; // into another database
        }
        let db = self.lanes.state(client.lane_set).db;
        keys::all(&row.keys, args).any(|index| self.waited.contains(db, args.get(index)))
    }
}
