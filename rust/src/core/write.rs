//! Writes a client's replies to its socket.

use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::net::socket;
use crate::net::socket::Io;

/// An emptied buffer larger than this goes to the pool, so that an idle client keeps next to
/// nothing.
const OUT_KEEP: usize = 4 * 1024;

/// Buffers in the pool; below, the largest size of each.
const POOL_BUFFERS: usize = 64;

const POOL_LARGEST: usize = 1024 * 1024;

/// The written part must be this many times as long as the rest before the rest is moved to the
/// front, so that the move is never a delay to notice.
const TRIM_AFTER: usize = 8;

impl Worker {
    pub(crate) fn write_client(&mut self, place: usize) {
        self.release(place);
        let client = &mut self.clients[place];
        if client.is_deaf {
            client.sent = client.out.len();
        } else if client.pending() > 0 && !client.wants_write {
            client.note_written(client.pending());
            match socket::write(&client.fd, &client.out[client.sent..]) {
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

    /// Frees the memory that a client's buffers no longer need.
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
