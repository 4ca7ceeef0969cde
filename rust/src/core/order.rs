//! Who goes behind whom: a command that the coordinator runs comes behind those for the same keys that
//! its worker has taken before, and that are still being tried (`commands/attempt.rs`) or looked for (`commands/locked_pop.rs`).
//!
//! It waits for what is there when it comes, not for what comes meanwhile: others may never stop.

use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::client::attempt::Ahead;
use crate::core::worker::Worker;
use crate::lane::in_flight::Watermark;
use crate::resp::request::Args;
use crate::tables::lock::Fingerprint;
use crate::work::attempts::AttemptInFlight;
use std::sync::Arc;

impl Worker {
    /// A command is being tried on a lane: all it has in flight.
    pub(crate) fn note_attempt(
        &mut self,
        place: usize,
        keys: Arc<[Fingerprint]>,
        is_of_group: bool,
    ) {
        let attempts = &mut self.attempts;
        // Before there is more memory for them: so each is looked at a few times at most.
        if attempts.known.len() == attempts.known.capacity() {
            attempts.known.retain(|one| one.mark.is_open(&self.lanes));
        }
        if let Some(mark) = self.lanes.get(place).and_then(|lane| Watermark::of(place, lane)) {
            attempts.known.push(AttemptInFlight { mark, keys, is_of_group });
            attempts.has_groups |= is_of_group;
        }
    }

    /// True if a command waits for something that is ahead of it: for these keys, or, with none, for
    /// any; only for consumers of groups, or for everybody.
    pub(crate) fn must_follow(&mut self, place: usize, keys: &[Fingerprint], groups: bool) -> bool {
        if self.clients[place].executing.is_some() {
            return false; // under a lock, for which those ahead may wait
        }
        let ahead = self.clients[place].ahead.take().unwrap_or_else(|| {
            let is_wanted = |one: &&AttemptInFlight| {
                (one.is_of_group || !groups)
                    && (keys.is_empty() || one.keys.iter().any(|key| keys.contains(key)))
            };
            let marks = self.attempts.known.iter().filter(is_wanted).map(|one| one.mark);
            let last_pop = if groups { None } else { self.locked_pops.last_for(keys) };
            Box::new(Ahead { marks: marks.collect(), last_pop })
        });
        if let Some(mark) = ahead.marks.iter().find(|mark| mark.is_open(&self.lanes)) {
            self.wait_for_lane(place, mark.lane);
        } else if ahead.last_pop.is_some_and(|token| self.locked_pops.has_up_to(token, keys)) {
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
        self.attempts.known.retain(|one| one.mark.is_open(&self.lanes));
        self.attempts.has_groups = self.attempts.known.iter().any(|one| one.is_of_group);
        if row.traits.only_adds {
            return false;
        }
        let (db, table) = (self.db(place), &self.shared.lock_table);
        let keys = key_specs::all(&row.keys, args).map(|at| table.fingerprint(db, args.get(at)));
        let keys: Vec<Fingerprint> = keys.collect(); // FLUSHALL has none
        self.must_follow(place, &keys, true)
    }
}
