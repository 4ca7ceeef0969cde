//! Who goes behind whom: a command that the coordinator runs comes behind those for the same keys that
//! its worker has taken before, and that are still being tried (`trying.rs`) or looked for (`looks.rs`).
//!
//! It waits for what is there when it comes, not for what comes meanwhile: others may never stop.

use crate::client::{Client, Owed};
use crate::command::Row;
use crate::keys;
use crate::lane::{Expect, Lane};
use crate::lanes::Lanes;
use crate::lock_table::Fingerprint;
use crate::request::Args;
use crate::trying::Attempt;
use crate::worker::Worker;

/// What is in flight on a lane: it is answered when the lane has answered so many.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) lane: usize,
    serial: u64,
    answered: u64,
}

impl Mark {
    /// All that is in flight; `None` if nothing is.
    pub(crate) fn of(place: usize, lane: &Lane) -> Option<Self> {
        let in_flight = lane.expects.len() as u64;
        let answered = lane.answered + in_flight;
        (in_flight > 0).then_some(Self { lane: place, serial: lane.serial, answered })
    }

    /// True until that has run.
    pub(crate) fn is_open(&self, lanes: &Lanes) -> bool {
        lanes.get(self.lane).is_some_and(|lane| {
            // What has begun to be answered has run; a client may take its time to read it.
            let has_run = lane.answered + u64::from(lane.cutter.is_within());
            lane.serial == self.serial && !lane.is_broken && has_run < self.answered
        })
    }
}

/// What is ahead of a client's next command.
#[derive(Debug)]
pub(crate) struct Ahead {
    marks: Vec<Mark>,
    /// The lock of the last look.
    last_look: Option<u64>,
}

impl Worker {
    /// True if a command waits for something that is ahead of it: for these keys, or, with none, for
    /// any; only consumers of groups, or everybody.
    pub(crate) fn must_follow(
        &mut self,
        place: usize,
        names: &[Fingerprint],
        groups: bool,
    ) -> bool {
        let is_wanted = |attempt: &Attempt| {
            (attempt.needs_key || !groups) && (names.is_empty() || attempt.names_one_of(names))
        };
        let ahead = self.clients[place].ahead.take().unwrap_or_else(|| {
            let last_look = if groups { None } else { self.looks.last_for(names) };
            Box::new(Ahead { marks: self.marks_of(is_wanted), last_look })
        });
        if let Some(mark) = ahead.marks.iter().find(|mark| mark.is_open(&self.lanes)) {
            self.wait_for_lane(place, mark.lane);
        } else if ahead.last_look.is_some_and(|token| self.looks.has_up_to(token, names)) {
            self.wait_for_unlock(place);
        } else {
            return false;
        }
        self.clients[place].ahead = Some(ahead);
        true
    }

    /// The lanes on which such commands are being tried.
    fn marks_of(&self, is_wanted: impl Fn(&Attempt) -> bool) -> Vec<Mark> {
        let is_trying = |expect: &Expect| {
            let client = self.clients.get(expect.client as usize);
            let client = client.filter(|client| client.generation == expect.generation);
            let at = |client: &Client| expect.sequence.wrapping_sub(client.front) as usize;
            let owed = client.and_then(|client| client.owed.get(at(client)));
            matches!(owed, Some(Owed::Trying(attempt)) if is_wanted(attempt))
        };
        let lanes = self.lanes.open.iter().filter(|(_, lane)| lane.expects.iter().any(is_trying));
        lanes.filter_map(|(place, lane)| Mark::of(place, lane)).collect()
    }

    /// True if a command that may end a stream waits for an XREADGROUP that is being tried: it came
    /// before, and will hear of the end only if it waits by then. An entry that XADD adds it finds in
    /// any case.
    #[cold]
    pub(crate) fn must_follow_groups(&mut self, place: usize, row: &Row, args: Args) -> bool {
        if row.name == b"xadd" || self.clients[place].executing.is_some() {
            return false;
        }
        let (db, table) = (self.db(place), &self.shared.lock_table);
        let names = keys::all(&row.keys, args).map(|at| table.fingerprint(db, args.get(at)));
        let names: Vec<Fingerprint> = names.collect(); // FLUSHALL has none
        self.tries_for_groups = !self.marks_of(|attempt| attempt.needs_key).is_empty();
        self.must_follow(place, &names, true)
    }
}
