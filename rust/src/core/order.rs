//! Who goes behind whom: a command that the coordinator runs comes behind those for the same keys that
//! its worker has taken before, and that are still being tried (`commands/attempt.rs`) or looked for (`commands/search.rs`).
//!
//! It waits for what is there when it comes, not for what comes meanwhile: others may never stop.

use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::client::attempt::Ahead;
use crate::core::worker::Worker;
use crate::lane::in_flight::Mark;
use crate::resp::request::Args;
use crate::tables::lock::Fingerprint;
use crate::work::tries::Try;
use std::sync::Arc;

impl Worker {
    /// A command is being tried on a lane: all it has in flight.
    pub(crate) fn note_try(&mut self, place: usize, keys: Arc<[Fingerprint]>, is_of_group: bool) {
        let tries = &mut self.tries;
        // Before there is more memory for them: so each is looked at a few times at most.
        if tries.known.len() == tries.known.capacity() {
            tries.known.retain(|one| one.mark.is_open(&self.lanes));
        }
        if let Some(mark) = self.lanes.get(place).and_then(|lane| Mark::of(place, lane)) {
            tries.known.push(Try { mark, keys, is_of_group });
            tries.has_groups |= is_of_group;
        }
    }

    /// True if a command waits for something that is ahead of it: for these keys, or, with none, for
    /// any; only for consumers of groups, or for everybody.
    pub(crate) fn must_follow(&mut self, place: usize, keys: &[Fingerprint], groups: bool) -> bool {
        if self.clients[place].executing.is_some() {
            return false; // under a lock, for which those ahead may wait
        }
        let ahead = self.clients[place].ahead.take().unwrap_or_else(|| {
            let is_wanted = |one: &&Try| {
                (one.is_of_group || !groups)
                    && (keys.is_empty() || one.keys.iter().any(|key| keys.contains(key)))
            };
            let marks = self.tries.known.iter().filter(is_wanted).map(|one| one.mark);
            let last_look = if groups { None } else { self.looks.last_for(keys) };
            Box::new(Ahead { marks: marks.collect(), last_look })
        });
        if let Some(mark) = ahead.marks.iter().find(|mark| mark.is_open(&self.lanes)) {
            self.wait_for_lane(place, mark.lane);
        } else if ahead.last_look.is_some_and(|token| self.looks.has_up_to(token, keys)) {
            self.wait_for_unlock(place);
        } else {
            return false;
        }
        self.clients[place].ahead = Some(ahead);
        true
    }

    /// True if a command that may end a stream waits for an XREADGROUP that is being tried: it came
    /// before, and will hear of the end only if it waits by then. An entry that XADD adds it finds in
    /// any case.
    #[cold]
    pub(crate) fn must_follow_groups(&mut self, place: usize, row: &Row, args: Args) -> bool {
        self.tries.known.retain(|one| one.mark.is_open(&self.lanes));
        self.tries.has_groups = self.tries.known.iter().any(|one| one.is_of_group);
        if row.name == b"xadd" {
            return false;
        }
        let (db, table) = (self.db(place), &self.shared.lock_table);
        let keys = key_specs::all(&row.keys, args).map(|at| table.fingerprint(db, args.get(at)));
        let keys: Vec<Fingerprint> = keys.collect(); // FLUSHALL has none
        self.must_follow(place, &keys, true)
    }
}
