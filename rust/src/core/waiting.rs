//! Whether a command touches a key that blocked clients wait for.

use crate::catalog::key_specs;
use crate::catalog::table::{Route, Row};
use crate::core::worker::Worker;
use crate::resp::request::Args;

impl Worker {
    /// True if this command may feed or read a key that a client waits for.
    #[inline]
    pub(crate) fn concerns_a_wait(&self, place: usize, row: &Row, args: Args) -> bool {
        (row.feeds || !row.writes)
            && !self.shared.blocking_keys.is_empty()
            && self.names_a_waited_key(place, row, args)
    }

    #[cold]
    fn names_a_waited_key(&self, place: usize, row: &Row, args: Args) -> bool {
        let client = &self.clients[place];
        if client.executing.is_some() || !matches!(row.route, Route::Keys | Route::Split(_)) {
            return false; // the coordinator already runs it, or its transaction
        }
        if row.traits.writes_elsewhere {
            return true;
        }
        let db = self.lanes.state(client.lane_set).db;
        key_specs::all(&row.keys, args)
            .any(|index| self.shared.blocking_keys.contains(db, args.get(index)))
    }
}
