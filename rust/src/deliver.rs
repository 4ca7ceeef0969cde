//! From the lanes back to the clients: cut replies, hand each to whom it is owed, write once.

use crate::client::{Gate, Owed};
use crate::closing::Closing;
use crate::instance;
use crate::lane::{BUFFER_KEEP, Expect};
use crate::net::{self, Io};
use crate::reply::{is_error, push_error};
use crate::scan;
use crate::worker::{Worker, put_back};
use std::sync::atomic::Ordering::Relaxed;

/// A reply this long moves on to its client while the rest is still coming.
const STREAM_AT_LEAST: usize = 64 * 1024;
/// A reply, or what is there of it, this long is written to its client where it lies: a write of
/// its own costs less than the copy.
const DIRECT_AT_LEAST: usize = 32 * 1024;
/// Bytes for a client that are not worth holding back any longer.
const HOLD_MOST: usize = 64 * 1024;
/// An emptied buffer larger than this goes to the pool: an idle client keeps next to nothing.
const OUT_KEEP: usize = 4 * 1024;
/// Buffers in the pool, and their largest size.
const POOL_BUFFERS: usize = 64;
const POOL_LARGEST: usize = 1024 * 1024;
/// So many times what is left must be written before that is moved to the front, which nobody should
/// wait for.
const TRIM_AFTER: usize = 8;

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is where it is owed, or nobody wants it.
    Done,
    /// It says what came of a blocking command that was tried: `attempted` is to see to it.
    Attempt,
}

impl Worker {
    /// Tells those who wait for lanes that have broken.
    pub(crate) fn hand_out_losses(&mut self) {
        while let Some(place) = self.lost.pop() {
            self.forget_overdue(place);
            self.fail_owed(place);
            self.lost_for_commit(place);
            self.lost_for_looks(place);
        }
    }

    /// Hands out the replies that a lane has read.
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
        self.wake_lane_waiters(place); // some wait for an answer
        self.stream(place);
        if self.lanes.has_big(place) {
            self.tend(place);
        }
        // The opening may just have been answered: what waited for it can go.
        if self.lanes.get(place).is_some_and(|lane| lane.can_write() && !lane.wants_write) {
            self.mark_lane_dirty(place);
        }
        if self.lanes.get(place).is_some_and(|lane| lane.readable && !lane.is_paused) {
            self.ready_lanes.push(place);
        }
    }

    pub(crate) fn deliver(
        &mut self,
        lane: usize,
        start: u32,
        length: u32,
        expect: Expect,
    ) -> Delivery {
        let place = expect.client as usize;
        let Some(client) = self.clients.get_mut(place) else {
            return Delivery::Done;
        };
        if client.generation != expect.generation {
            return Delivery::Done;
        }
        let is_front = client.is_front(expect.sequence);
        if is_front && client.out.capacity() == 0 {
            client.out = self.pool.pop().unwrap_or_default();
        }
        let mut whole = None;
        let reply = self.lanes.received(lane, start, length);
        match client.owed_at(expect.sequence) {
            Some(owed @ (Owed::Waiting(_) | Owed::Streaming)) if is_front => {
                if let (Owed::Waiting(row), true) = (owed, is_error(reply))
                    && self.tally.failed(*row as usize, reply)
                {
                    self.denied.push((place, *row));
                }
                if !client.drops(expect.sequence) {
                    if reply.len() < DIRECT_AT_LEAST {
                        client.out.extend_from_slice(reply);
                    } else {
                        self.counters.net_output_bytes += client.pass_on(reply);
                    }
                }
                client.pop_front();
                if !client.owed.is_empty() {
                    client.settle(&self.lanes.received);
                }
            }
            Some(owed @ Owed::Waiting(_)) => {
                if let (Owed::Waiting(row), true) = (&*owed, is_error(reply))
                    && self.tally.failed(*row as usize, reply)
                {
                    self.denied.push((place, *row));
                }
                let Ok(lane) = u32::try_from(lane) else { return Delivery::Done };
                *owed = Owed::Ready { lane, start, length };
                self.early.push((place, expect.sequence));
                return Delivery::Done; // nothing to write yet
            }
            Some(Owed::Block(block)) if block.before == 0 && !block.refusal.is_empty() => {
                let error = block.aborted();
                self.tally.failed(block.exec as usize, &error);
                client.hold(expect.sequence, error);
                client.settle(&self.lanes.received);
            }
            Some(owed @ Owed::Block(_)) => {
                if self.tally.of_block(owed, reply) {
                    return self.deliver(lane, start, length, expect);
                }
                return Delivery::Done; // else EXEC's reply is still to come
            }
            Some(Owed::Trying(_)) => return Delivery::Attempt,
            Some(Owed::Scanning(instance, row)) => {
                let (instance, row) = (*instance, *row);
                if is_error(reply) {
                    self.tally.failed(row as usize, reply);
                }
                let rewritten = scan::rewrite(reply, usize::from(instance), self.instances.len());
                client.hold(expect.sequence, rewritten);
                client.settle(&self.lanes.received);
            }
            Some(Owed::Merging(merging, row)) => {
                let Some(instance) = self.lanes.get(lane).map(|lane| lane.instance) else {
                    return Delivery::Done;
                };
                let before = merging.size();
                if merging.add(instance, reply, &mut self.merged) {
                    if is_error(&self.merged) {
                        self.tally.failed(*row as usize, &self.merged);
                    }
                    let has_run = !is_error(&self.merged) || !self.tally.was_rejection();
                    whole = merging.begun.take().filter(|_| has_run).zip(Some(self.merged.len()));
                    client.held -= before;
                    client.put_from(expect.sequence, &mut self.merged);
                    self.merged.clear();
                    self.merged.shrink_to(BUFFER_KEEP);
                } else {
                    client.held += reply.len();
                    if reply.len() < HOLD_MOST {
                        return Delivery::Done; // nothing to write yet, and no size to look at
                    }
                }
                client.settle(&self.lanes.received);
            }
            // Paired wrongly: impossible, and if not, no reply is better than another's.
            _ => {
                self.end_client(place);
                return Delivery::Done;
            }
        }
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(place);
        }
        if client.gate == Gate::Drain && client.owed.is_empty() {
            self.open_gate(place);
        }
        if let Some((begun, length)) = whole {
            self.log_whole(place, &begun, length);
        }
        Delivery::Done
    }

    /// Moves the beginning of a large reply to its client, if it is that client's turn.
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

    /// What came out of order and still waits for its turn gets memory of its own; then the
    /// receive buffers are free again.
    pub(crate) fn keep_early_replies(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        for (place, sequence) in early.drain(..) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            // The client may have read it by now: then this number is of the past.
            if let Some(&mut Owed::Ready { lane, start, length }) = client.owed_at(sequence) {
                let reply = self.lanes.received(lane as usize, start, length);
                if client.park(sequence, reply) {
                    self.mark_dirty(place); // its size is looked at where it is written to
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

    /// Everyone who waits for this lane gets an error that says whether the command was sent.
    pub(crate) fn fail_owed(&mut self, lane: usize) {
        let Some(known) = self.lanes.get_mut(lane) else {
            return;
        };
        let instance = known.instance;
        let busy = known.busy.take();
        let expects = std::mem::take(&mut known.expects);
        let sent: Vec<(Expect, bool)> =
            expects.into_iter().map(|expect| (expect, known.was_sent(&expect))).collect();
        for (expect, was_sent) in sent {
            let place = expect.client as usize;
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            if client.generation != expect.generation {
                continue;
            }
            let mut error = busy.clone().unwrap_or_default();
            if error.is_empty() {
                push_error(&mut error, instance::lost(instance, was_sent).as_bytes());
            }
            match client.owed_at(expect.sequence) {
                // Each reply of a block would come here; the first stands for all.
                Some(owed) if owed.comes_whole() => {
                    let row = owed.row();
                    self.tally.failed(row as usize, &error);
                    client.hold(expect.sequence, error);
                }
                Some(Owed::Held(_)) => {}
                None => continue, // it was told already
                Some(Owed::Merging(merging, row)) => {
                    let before = merging.size();
                    let mut whole = Vec::new();
                    if !merging.add(instance, &error, &mut whole) {
                        client.held += error.len();
                        continue;
                    }
                    self.tally.failed(*row as usize, &whole);
                    client.held -= before;
                    client.hold(expect.sequence, whole);
                }
                // Half of the reply is written: nothing we could add would be true.
                _ => {
                    self.end_client(place);
                    continue;
                }
            }
            client.settle(&self.lanes.received);
            if client.gate == Gate::Drain && client.owed.is_empty() {
                self.open_gate(place);
            }
            self.mark_dirty(place);
        }
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

    /// True if the rest of this client's pipeline is about to be answered.
    fn may_hold(&self, place: usize) -> bool {
        let client = &self.clients[place];
        !client.owed.is_empty()
            && client.gate == Gate::Open
            && client.closing == Closing::No
            && client.pending() < HOLD_MOST
            && !matches!(client.owed.front(), Some(Owed::Streaming))
    }

    pub(crate) fn write_client(&mut self, place: usize) {
        self.release(place);
        let client = &mut self.clients[place];
        if client.is_deaf {
            client.sent = client.out.len();
        } else if client.pending() > 0 && !client.wants_write {
            client.note_written(client.pending());
            match net::write(&client.fd, &client.out[client.sent..]) {
                Io::Gone => return self.has_left(place),
                Io::Later => {}
                Io::Moved(written) => {
                    client.sent += written;
                    client.session.output_bytes += written as u64;
                    self.counters.net_output_bytes += written as u64;
                }
            }
            if client.pending() > 0 {
                client.wants_write = true;
                if self.watch_client(place).is_err() {
                    return self.end_client(place);
                }
            }
        }
        self.trim(place);
        self.account(place);
        if self.clients[place].pauses_lane {
            self.read_paused_lanes_of(place);
        }
        let client = &mut self.clients[place];
        let is_over = client.pending() > 0
            && client.is_over(&self.shared.settings.output_limits, self.now_seconds);
        if is_over {
            self.counters.clients_evicted += 1;
            self.end_when_whole(place);
        } else if client.gate == Gate::Output || client.pauses_lane {
            self.look_again(place);
        } else if client.closing == Closing::AfterReplies
            && client.owed.is_empty()
            && client.pending() == 0
        {
            self.say_goodbye(place);
        }
    }

    /// Gives back what a client's buffers no longer need.
    fn trim(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.sent == client.out.len() {
            client.sent = 0;
            client.out.clear();
            if client.out.capacity() > OUT_KEEP {
                let buffer = std::mem::take(&mut client.out);
                if self.pool.len() < POOL_BUFFERS && buffer.capacity() <= POOL_LARGEST {
                    self.pool.push(buffer);
                }
            }
        } else if client.sent > POOL_LARGEST && client.sent >= TRIM_AFTER * client.pending() {
            client.out.drain(..client.sent);
            client.out.shrink_to(2 * client.out.len());
            client.sent = 0;
        }
        if client.owed.is_empty() && client.owed.capacity() > 128 {
            client.owed = std::collections::VecDeque::new();
        }
    }
}
