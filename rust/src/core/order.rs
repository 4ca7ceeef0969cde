//! The order of commands on the same keys. A command that the coordinator runs goes after those
//! that its worker took before it, and that are still being tried (`commands/attempt.rs`) or run
//! under a lock (`commands/locked_pop.rs`).
//!
//! It waits only for commands that were there when it came; later ones might never end.

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
    /// Notes an attempt on a lane, with all that is in flight on it.
    pub(crate) fn note_attempt(
        &mut self,
        place: usize,
        keys: Arc<[Fingerprint]>,
        is_of_group: bool,
    ) {
        let attempts = &mut self.attempts;
        // Before the list grows. So each entry is checked only a few times.
        if attempts.known.len() == attempts.known.capacity() {
            attempts.known.retain(|one| one.mark.is_open(&self.lanes));
        }
        if let Some(mark) = self.lanes.get(place).and_then(|lane| Watermark::of(place, lane)) {
            attempts.known.push(AttemptInFlight { mark, keys, is_of_group });
            attempts.has_groups |= is_of_group;
        }
    }

    /// True if a command must wait for earlier ones: on these keys or, if there are none, on any;
    /// with `groups`, only for consumers of groups.
    pub(crate) fn must_follow(&mut self, place: usize, keys: &[Fingerprint], groups: bool) -> bool {
        if self.clients[place].executing.is_some() {
            return false; // under a lock that the earlier ones may wait for
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

    /// True if a command that may end a stream must wait for an XREADGROUP that is being tried. The
    /// XREADGROUP came first, and gets the error about the end only if it is waiting by then. XADD
    /// need not wait: the attempt finds its entry in any case.
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
