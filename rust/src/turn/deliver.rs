//! From the lanes back to the clients: cuts replies, delivers each to its client, writes once.

use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::deliver::{Delivery, HOLD_MOST};
use crate::core::worker::{Worker, put_back};
use std::sync::atomic::Ordering::Relaxed;

/// A reply at least this long is passed on to its client while the rest is still arriving.
const STREAM_AT_LEAST: usize = 64 * 1024;

impl Worker {
    /// Delivers the replies that were read from a lane.
    pub(crate) fn cut_replies(&mut self, place: usize) {
        self.deliver_ordinary(place);
        loop {
            match self.lanes.next_reply(place) {
                Ok(Some((start, length, expect))) => {
                    if self.deliver(place, start, length, expect) == Delivery::Attempt {
                        self.attempted(place, start, length, expect);
                    }
                    self.deliver_ordinary(place);
                }
                Ok(None) => break,
                Err(_) => {
                    self.break_lane(place);
                    return;
                }
            }
        }
        self.wake_lane_waiters(place); // some clients wait for a reply on this lane
        self.stream(place);
        if self.lanes.has_big(place) {
            self.tend(place);
        }
        // The lane's opening may just have been answered: commands that waited for it can go out.
        if self.lanes.get(place).is_some_and(|lane| lane.can_write() && !lane.wants_write) {
            self.mark_lane_dirty(place);
        }
        if self.lanes.get(place).is_some_and(|lane| lane.readable && !lane.is_paused) {
            self.ready_lanes.push(place);
        }
    }

    /// Passes the beginning of a large reply on to its client, if that client's turn has come.
    fn stream(&mut self, lane: usize) {
        let Some((start, length, expect)) = self.lanes.partial(lane, STREAM_AT_LEAST) else {
            return;
        };
        let place = expect.client as usize;
        if let Some(client) = self.clients.get_mut(place)
            && client.generation == expect.generation
        {
            let is_front = client.is_front(expect.sequence);
            match client.owed_at(expect.sequence) {
                Some(owed) if is_front && self.tally.may_stream(owed) => {
                    *owed = Owed::Streaming;
                    if !client.drops(expect.sequence) {
                        let bytes = self.lanes.received(lane, start, length);
                        if client.out.capacity() == 0 {
                            client.out = self.pool.pop().unwrap_or_default();
                        }
                        self.counters.net_output_bytes += client.pass_on(bytes);
                        self.mark_dirty(place);
                    }
                }
                _ => return,
            }
        }
        self.lanes.take_partial(lane);
    }

    /// Copies the replies that came out of order and still wait for their turn; then the receive
    /// buffers are free again.
    pub(crate) fn keep_early_replies(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        for (place, sequence) in early.drain(..) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            // The client may have got it by now: then this sequence number is in the past.
            if let Some(&mut Owed::Ready { lane, start, length }) = client.owed_at(sequence) {
                let reply = self.lanes.received(lane as usize, start, length);
                if client.park(sequence, reply) {
                    self.mark_dirty(place); // its size is checked when it is written
                }
            }
        }
        put_back(&mut self.early, early);
        let mut filled = std::mem::take(&mut self.filled);
        for place in filled.drain(..) {
            if self.lanes.get(place).is_some() {
                self.lanes.compact(place);
            }
        }
        put_back(&mut self.ready_lanes, filled);
    }

    /// Writes to every client that has replies, once.
    pub(crate) fn write_clients(&mut self) {
        if std::mem::take(&mut self.tally.saw_no_memory) {
            self.shared.settings.tight.store(true, Relaxed);
        }
        if !self.denied.is_empty() {
            self.note_denials();
        }
        if !self.held.is_empty() && self.now >= self.held_until {
            let mut held = std::mem::take(&mut self.held);
            for place in held.drain(..) {
                if self.clients.get(place).is_some_and(|client| client.is_held) {
                    self.write_client(place);
                }
            }
            put_back(&mut self.held, held);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            client.is_dirty = false;
            if client.closing == Closing::Now || client.is_held && self.may_hold(place) {
                continue;
            }
            if self.may_hold(place) {
                self.hold(place);
            } else {
                self.write_client(place);
            }
        }
        put_back(&mut self.dirty, dirty);
        if self.buffered > self.shared.client_memory() {
            self.evict();
        }
    }

    /// True if the rest of this client's pipeline will be answered very soon.
    fn may_hold(&self, place: usize) -> bool {
        let client = &self.clients[place];
        !client.owed.is_empty()
            && client.gate == Gate::Open
            && client.closing == Closing::No
            && client.pending() < HOLD_MOST
            && !matches!(client.owed.front(), Some(Owed::Streaming))
    }
}
