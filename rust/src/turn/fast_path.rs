//! The ordinary command and its reply: one key, one instance, and nothing special about the client,
//! the command or the current settings. Nearly all commands are like that.
//!
//! Anything special is left to `forward` and `deliver`, which handle every case. This is the short
//! path only. It runs over whole pipelines, and checks only once what cannot change between their
//! commands.

use crate::base::number::length_of_several_digits;
use crate::client::client::OWED_LIMIT;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::resp::reply::plain;
use crate::tables::settings::OF_WRITES;
use std::sync::atomic::Ordering::Relaxed;

/// A command of two to nine arguments, in canonical framing.
struct Command<'a> {
    name: &'a [u8],
    key: &'a [u8],
    /// Number of its arguments, name included.
    count: usize,
    /// Number of its bytes.
    length: usize,
}

impl Worker {
    /// Forwards the ordinary commands at the front of `bytes`, and returns how many bytes they had.
    pub(crate) fn forward_ordinary(&mut self, place: usize, bytes: &[u8]) -> usize {
        let shared = &*self.shared;
        let client = &mut self.clients[place];
        if !client.is_ordinary(bytes.len(), &shared.settings) || !shared.is_calm() {
            return 0;
        }
        let set = client.lane_set;
        let db = self.lanes.state(set).db;
        let room = OWED_LIMIT - client.owed.len();
        let must_tell = shared.settings.events.load(Relaxed) >= OF_WRITES;
        let (mut used, mut taken) = (0, 0);
        while taken < room
            && let Some(command) = cut(&bytes[used..])
        {
            let found = shared.table.find_ordinary(&mut self.recent, command.name);
            let Some((found, row)) = found else { break };
            if !row.takes(command.count)
                || row.feeds && (self.attempts.has_groups || !shared.blocking_keys.is_empty())
                || !row.writes && shared.blocking_keys.has(db, command.key)
                || row.writes && (must_tell || shared.tracking.is_on())
                || self.locks.stops(&shared.lock_table, db, command.key, row.writes)
            {
                break;
            }
            let instance = usize::from(shared.placement.instance(db, command.key));
            let Some((lane, known)) = self.lanes.open_lane_mut(set, instance) else { break };
            if known.is_full() {
                break;
            }
            let end = used + command.length;
            known.out.extend_from_slice(&bytes[used..end]);
            client.last_command = found;
            let sequence = client.owe(Owed::Waiting(client.last_row()));
            known.expect(place, client.generation, sequence, command.length, self.now_seconds);
            if !known.is_dirty {
                known.is_dirty = true;
                self.dirty_lanes.push(lane);
            }
            self.tally.called(found);
            used = end;
            taken += 1;
        }
        self.counters.lane_commands += taken as u64;
        self.counters.commands += taken as u64;
        client.session.commands += taken as u64;
        used
    }

    /// Delivers the ordinary replies at the front of what a lane has received: short ones without
    /// errors, for commands that need nothing else done.
    pub(crate) fn deliver_ordinary(&mut self, place: usize) {
        let Some((lane, received)) = self.lanes.lane_and_received(place) else { return };
        if lane.opening > 0 || lane.cutter.is_within() {
            return;
        }
        let Ok(lane_place) = u32::try_from(place) else { return };
        while let Some(&first) = lane.expects.front() {
            let owner = first.client as usize;
            let Some(client) = self.clients.get_mut(owner) else { return };
            if client.generation != first.generation
                || client.reply_mode.is_some()
                || client.gate == Gate::Drain
            {
                return;
            }
            if client.out.capacity() == 0 {
                client.out = self.pool.pop().unwrap_or_default();
            }
            let was_front = client.front;
            let mut is_over = false;
            while let Some(expect) = lane.expects.front()
                && (expect.client, expect.generation) == (first.client, first.generation)
            {
                let buffer = received.after(place, lane.start);
                let ahead = expect.sequence.wrapping_sub(client.front) as usize;
                let Some(owed @ Owed::Waiting(_)) = client.owed.get_mut(ahead) else {
                    is_over = true;
                    break;
                };
                let (Some(length), Ok(start)) = (plain(buffer), u32::try_from(lane.start)) else {
                    is_over = true;
                    break;
                };
                if ahead == 0 {
                    client.out.extend_from_slice(&buffer[..length]);
                    client.pop_front();
                    if !matches!(client.owed.front(), None | Some(Owed::Waiting(_))) {
                        client.settle(received);
                    }
                } else {
                    let Ok(length) = u32::try_from(length) else { return };
                    *owed = Owed::Ready { lane: lane_place, start, length };
                    self.early.push((owner, expect.sequence));
                }
                lane.start += length;
                lane.answered += 1;
                lane.expects.pop_front();
            }
            if client.front != was_front && !client.is_dirty {
                client.is_dirty = true;
                self.dirty.push(owner);
            }
            if is_over {
                return;
            }
        }
    }
}

/// Cuts an ordinary command off the front; `None` for any other one, and for one that is not
/// complete.
#[inline]
fn cut(bytes: &[u8]) -> Option<Command<'_>> {
    let &[b'*', count @ b'2'..=b'9', b'\r', b'\n', ..] = bytes else { return None };
    let count = usize::from(count - b'0');
    let (name, at) = cut_bulk(bytes, 4)?;
    let (key, mut at) = cut_bulk(bytes, at)?;
    for _ in 2..count {
        (_, at) = cut_bulk(bytes, at)?;
    }
    Some(Command { name, key, count, length: at })
}

/// A bulk string of up to 9,999 bytes at `at`, and where the next one is.
#[inline]
fn cut_bulk(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, start) = match bytes.get(at..)? {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', ..] => (usize::from(ones - b'0'), at + 4),
        [b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            (usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), at + 5)
        }
        [b'$', line @ ..] => {
            let (length, line_length) = length_of_several_digits(line)?;
            (length, at + 1 + line_length)
        }
        _ => return None,
    };
    let end = start + length;
    (bytes.get(end..end + 2)? == b"\r\n").then(|| (&bytes[start..end], end + 2))
}
