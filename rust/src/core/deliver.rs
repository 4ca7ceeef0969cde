//! Delivers a reply to the client that is owed it.

use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::lane::lane::{BUFFER_KEEP, Expect};
use crate::resp::reply::is_error;
use crate::routing::scan_cursor;
use crate::work::tally::Tally;

/// A reply, or the part of it that is here, that is at least this long is written to its client
/// directly from the receive buffer: a separate write costs less than the copy.
const DIRECT_AT_LEAST: usize = 32 * 1024;

/// Bytes of replies from which on they are no longer held back.
pub(crate) const HOLD_MOST: usize = 64 * 1024;

/// The result of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The reply was delivered, or its client is gone.
    Done,
    /// It is the reply to a non-blocking attempt of a blocking command; `attempted` handles it.
    Attempt,
}

impl Worker {
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
                count_failure(&mut self.tally, &mut self.denied, place, owed, reply);
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
                count_failure(&mut self.tally, &mut self.denied, place, owed, reply);
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
            Some(Owed::Attempt(_)) => return Delivery::Attempt,
            Some(Owed::Scanning(instance, row)) => {
                let (instance, row) = (*instance, *row);
                if is_error(reply) {
                    self.tally.failed(row as usize, reply);
                }
                let rewritten =
                    scan_cursor::rewrite(reply, usize::from(instance), self.instances.len());
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
                        return Delivery::Done; // nothing to write yet, and no size to check
                    }
                }
                client.settle(&self.lanes.received);
            }
            // A wrong pairing. It should be impossible; if it happens, no reply is better than
            // another's.
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
}

/// Counts the error that a command was answered with; a denied command is also noted for ACL LOG.
#[inline]
fn count_failure(
    tally: &mut Tally,
    denied: &mut Vec<(usize, u32)>,
    place: usize,
    owed: &Owed,
    reply: &[u8],
) {
    if let Owed::Waiting(row) = owed
        && is_error(reply)
        && tally.failed(*row as usize, reply)
    {
        denied.push((place, *row));
    }
}
