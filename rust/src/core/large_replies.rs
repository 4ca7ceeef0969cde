//! Large replies. The lane that one arrives on is set aside. Once only one client uses it, it is
//! read no faster than that client reads.
//!
//! ```text
//! header of a large reply ─► aside: new commands take another lane
//!                            commands that already wait behind it stay; their clients send nothing
//!                            on the other lane before (two lanes to one instance may reorder)
//! only one client left    ─► paused while it does not read: the rest stays in the instance
//! everything answered     ─► spare, for the next use; or closed
//! ```
//! A lane that other clients still wait on is always read, even if the client of the large reply
//! does not read. Then the value counts against that client's memory limit.

use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::lane::lane::{BIG, Duty, Expect};

impl Worker {
    /// Handles a lane that has, or had, a large reply, after it was read.
    #[cold]
    pub(crate) fn tend(&mut self, place: usize) {
        let Some(lane) = self.lanes.get(place) else {
            return;
        };
        match lane.duty {
            Duty::Shared => self.set_aside(place),
            Duty::Upload | Duty::Scripts | Duty::Commit | Duty::LockedPops | Duty::Spare => return,
            Duty::Aside => {}
        }
        let Some(lane) = self.lanes.get(place) else {
            return;
        };
        if lane.duty != Duty::Aside {
            return; // too many lanes are set aside already
        }
        if lane.expects.is_empty() {
            if !self.lanes.spare(place) {
                self.give_up(place);
            }
        } else if self.is_forsaken(place) {
            self.give_up(place);
        } else if self.must_pause_lane(place) {
            self.pause_lane(place);
        }
    }

    /// Sends new commands to another lane. Clients that wait on this lane must not use that one
    /// until they are answered.
    fn set_aside(&mut self, place: usize) {
        if !self.lanes.set_aside(place) {
            return;
        }
        let expects =
            self.lanes.get(place).map_or(Vec::new(), |lane| lane.expects.iter().collect());
        for expect in expects {
            if let Some(client) = self.clients.get_mut(expect.client as usize)
                && client.generation == expect.generation
            {
                client.waits_aside = true;
                if client.gate == Gate::Open {
                    client.gate = Gate::Drain;
                }
            }
        }
    }

    /// Closes a working lane that is no longer needed.
    pub(crate) fn give_up(&mut self, place: usize) {
        self.lanes.retire(place);
        self.broken.push(place);
    }

    /// True if the client of the rest of a reply is gone, and no other reply is to come: reading
    /// megabytes to discard them costs more than a new lane.
    fn is_forsaken(&self, place: usize) -> bool {
        self.lanes.get(place).is_some_and(|lane| {
            let wanted = |expect: &Expect| {
                self.clients
                    .get(expect.client as usize)
                    .is_some_and(|client| client.generation == expect.generation)
            };
            lane.expects.len() == 1
                && lane.cutter.is_within()
                && !lane.expects.front().is_some_and(wanted)
        })
    }

    /// True if only one client waits on a lane that was set aside, and that client does not read,
    /// or is owed so much before this reply that it cannot get there.
    fn must_pause_lane(&self, place: usize) -> bool {
        let Some(lane) = self.lanes.get(place) else {
            return false;
        };
        let Some(first) = lane.expects.front() else {
            return false;
        };
        let Some(client) = self.clients.get(first.client as usize) else {
            return false;
        };
        let owner = (first.client, first.generation);
        let is_own = |expect: &Expect| (expect.client, expect.generation) == owner;
        if client.generation != first.generation || !lane.expects.iter().all(is_own) {
            return false;
        }
        // A lock waits until every command in flight has run. A reply that has begun proves this
        // only for its own command.
        if lane.expects.len() > 1 && self.locks.are_settling() {
            return false;
        }
        if client.executing.is_some() {
            return false; // under a lock that others wait for
        }
        let kept = client.rx.len();
        let is_ahead = client.pending() > 0 && client.keeps_rather(kept, &self.shared.settings);
        let at = first.sequence.wrapping_sub(client.front) as usize;
        match client.owed.get(at) {
            Some(Owed::Streaming) => is_ahead,
            Some(Owed::Waiting(_) | Owed::Block(_)) if at > 0 => lane.cutter.passed() >= BIG,
            _ => false,
        }
    }

    fn pause_lane(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else {
            return;
        };
        lane.is_paused = true;
        self.paused.push(place);
        if let Some(first) = lane.expects.front()
            && let Some(client) = self.clients.get_mut(first.client as usize)
        {
            client.pauses_lane = true;
        }
    }

    /// A client's bytes were written: reads its paused lanes again, and notes the bytes of those
    /// that stay paused.
    #[cold]
    pub(crate) fn read_paused_lanes_of(&mut self, place: usize) {
        self.read_paused_lanes();
        let lanes = self.paused.iter().filter_map(|&lane| self.lanes.get(lane));
        let is_own =
            |expect: &Expect| usize::try_from(expect.client).is_ok_and(|client| client == place);
        let own = lanes.filter(|lane| lane.expects.front().is_some_and(is_own));
        let withheld: Vec<usize> = own.map(|lane| lane.cutter.missing_body()).collect();
        let client = &mut self.clients[place];
        client.pauses_lane = !withheld.is_empty();
        client.session.withheld = withheld.iter().sum();
    }

    /// Resumes reading the paused lanes that need not be paused any more.
    pub(crate) fn read_paused_lanes(&mut self) {
        for place in std::mem::take(&mut self.paused) {
            if !self.lanes.get(place).is_some_and(|lane| lane.is_paused && !lane.is_broken) {
                continue; // another lane has this index by now
            }
            if self.must_pause_lane(place) {
                self.paused.push(place);
                continue;
            }
            if let Some(lane) = self.lanes.get_mut(place) {
                lane.is_paused = false;
                self.ready_lanes.push(place);
            }
        }
    }
}
