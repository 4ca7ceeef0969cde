//! A client: its socket, its session, and the replies that it is owed.
//!
//! ```text
//!            front                          owed: one entry a command, oldest first
//!              │
//! out ◄── [ Waiting | Ready | Held | Waiting ]  ◄── commands forwarded
//! ```
//! Invariant: a reply moves to `out` only from the front. So the client gets its replies in the
//! order of its commands, no matter in which order instances answer.

use crate::client::attempt::Ahead;
use crate::client::closing::Closing;
use crate::client::executing::Executing;
use crate::client::gate::Gate;
use crate::client::input::Input;
use crate::client::last_write::LastWrite;
use crate::client::owed::Owed;
use crate::client::push::Pushes;
use crate::client::reorder_buffer::ReorderBuffer;
use crate::client::reply_mode::ReplyMode;
use crate::client::session::Session;
use crate::client::subscriptions::Subscriptions;
use crate::client::transaction::Multi;
use crate::client::upload::Upload;
use crate::lane::received::Received;
use crate::resp::request::Request;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;

/// The most commands of a client in flight; beyond it, no more are taken.
pub const OWED_LIMIT: usize = 1024;

/// Bytes of unread replies above which the client's commands may have to wait.
pub const UNREAD_LIMIT: usize = 256 * 1024;

/// One connection of an application.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub fd: OwnedFd,
    /// Distinguishes the client from earlier ones at the same place.
    pub generation: u32,
    /// Bytes that were read but not forwarded: part of a command, or commands behind a gate.
    pub rx: Input,
    /// The progress of cutting the command at the front of `rx`, if that is a long one.
    pub request: Option<Box<Request>>,
    /// Bytes to write to the client.
    pub out: Vec<u8>,
    /// The number of these bytes that are written.
    pub sent: usize,
    /// The replies that it is owed, oldest first.
    pub owed: VecDeque<Owed>,
    /// The bytes of early replies (`Owed::Early`).
    pub(crate) parked: ReorderBuffer,
    /// The bytes of early replies and parts of replies (`Owed::Held` and `Owed::Merging`).
    pub held: usize,
    /// The sequence number of the oldest reply owed.
    pub front: u32,
    /// Its set of lanes: database, protocol, flags.
    pub lane_set: u32,
    /// It may run commands.
    pub authenticated: bool,
    /// Its user has restricted rights.
    pub is_restricted: bool,
    /// It has subscriptions in RESP2, so only a few commands are allowed.
    pub is_resp2_subscriber: bool,
    /// The row of the last command; `usize::MAX` before the first.
    pub last_command: usize,
    /// Why its commands are not taken, if they are not.
    pub gate: Gate,
    /// Whether and how its connection ends.
    pub closing: Closing,
    /// Its newest write, with `ordered-pipelines`.
    pub(crate) last_write: Option<LastWrite>,
    /// The socket may have more to read.
    pub readable: bool,
    /// The peer has ended its side; the poller reports that no more.
    pub hung_up: bool,
    /// All that the peer sent has been read.
    pub has_ended: bool,
    /// It takes no more replies: its commands still run, but their replies are dropped.
    pub is_deaf: bool,
    /// How the connection ends after its transaction, which is never left half run.
    pub closing_then: Closing,
    /// The socket is full; the client waits until it is writable.
    pub wants_write: bool,
    /// It is in the worker's list of clients to write to.
    pub is_dirty: bool,
    /// It is in the worker's list of clients to read.
    pub is_ready: bool,
    /// Its replies wait a moment for the rest of its pipeline.
    pub is_held: bool,
    /// A command that is forwarded while it is still arriving.
    pub(crate) upload: Option<Box<Upload>>,
    /// Pushes that must follow replies still to come.
    pub(crate) pushes: Pushes,
    /// Its subscriptions, if any.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// The queued commands between MULTI and EXEC.
    pub multi: Option<Box<Multi>>,
    /// The commands of EXEC, which run one after the other.
    pub executing: Option<Box<Executing>>,
    /// The coordinator watches keys for it.
    pub is_watching: bool,
    /// The coordinator knows the client, and must be notified when it is closed.
    pub notify_on_close: bool,
    /// It tracks keys.
    pub is_tracking: bool,
    /// Its next command waits a turn, so that invalidations reach the client first.
    pub feed_drained: bool,
    /// What must end before its next command.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// A counter that recent bulky writes to it raise.
    pub(crate) bulky_writes: u8,
    /// It uses one of the lanes for bulky replies.
    pub(crate) is_striped: bool,
    /// Bytes counted for it in the worker's total.
    pub accounted: usize,
    /// A lane with a large reply was detached while this client waited for it. The client uses no
    /// other lane before all its replies have come.
    pub(crate) waits_aside: bool,
    /// A lane is not read because this client does not read its replies.
    pub(crate) pauses_lane: bool,
    /// The replies that it does not want, if any.
    pub reply_mode: Option<Box<ReplyMode>>,
    /// Rarely used fields, apart so that the frequently used part stays small.
    pub session: Box<Session>,
}

impl Client {
    /// A new connection in database 0, RESP2.
    #[must_use]
    pub fn new(
        fd: OwnedFd,
        generation: u32,
        lane_set: u32,
        authenticated: bool,
        session: Session,
    ) -> Self {
        Self {
            fd,
            generation,
            rx: Input::default(),
            request: None,
            out: Vec::new(),
            sent: 0,
            owed: VecDeque::new(),
            parked: ReorderBuffer::default(),
            held: 0,
            front: 0,
            lane_set,
            authenticated,
            is_restricted: false,
            is_resp2_subscriber: false,
            last_command: usize::MAX,
            gate: Gate::Open,
            closing: Closing::No,
            last_write: None,
            readable: true,
            hung_up: false,
            has_ended: false,
            is_deaf: false,
            closing_then: Closing::No,
            wants_write: false,
            is_dirty: false,
            is_ready: false,
            is_held: false,
            upload: None,
            pushes: Pushes::new(),
            subscriptions: None,
            multi: None,
            executing: None,
            is_watching: false,
            notify_on_close: false,
            is_tracking: false,
            feed_drained: false,
            ahead: None,
            bulky_writes: 0,
            is_striped: false,
            accounted: 0,
            waits_aside: false,
            pauses_lane: false,
            reply_mode: None,
            session: Box::new(session),
        }
    }

    /// The sequence number of the next reply.
    #[inline]
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        self.front.wrapping_add(u32::try_from(self.owed.len()).unwrap_or(u32::MAX))
    }

    /// True if the reply with this number is not wanted.
    #[inline]
    #[must_use]
    pub fn drops(&self, sequence: u32) -> bool {
        self.reply_mode.as_ref().is_some_and(|reply_mode| reply_mode.drops(sequence))
    }

    /// Drops the reply mode once every reply is wanted again.
    fn forget_reply_mode(&mut self) {
        if self.reply_mode.as_mut().is_some_and(|reply_mode| reply_mode.is_over(self.front)) {
            self.reply_mode = None;
        }
    }

    /// A command without a reply was taken; it used up CLIENT REPLY SKIP.
    pub fn skip_nothing(&mut self) {
        let next = self.next_sequence();
        if let Some(reply_mode) = &mut self.reply_mode {
            reply_mode.answered(next);
            self.forget_reply_mode();
        }
    }

    /// Adds a reply that is still to come. Returns its sequence number.
    #[inline]
    pub fn owe(&mut self, owed: Owed) -> u32 {
        let sequence = self.next_sequence();
        self.owed.push_back(owed);
        sequence
    }

    /// Answers a command at once, but after all replies owed before it.
    pub fn answer(&mut self, reply: &[u8]) {
        let next = self.next_sequence();
        if self.reply_mode.is_some() && self.drops(next) {
            self.skip_nothing();
        } else if self.owed.is_empty() {
            self.out.extend_from_slice(reply);
        } else {
            self.held += reply.len();
            self.owe(Owed::Held(Box::new(reply.to_vec())));
        }
    }

    /// The entry with this sequence number.
    pub fn owed_at(&mut self, sequence: u32) -> Option<&mut Owed> {
        self.owed.get_mut(sequence.wrapping_sub(self.front) as usize)
    }

    /// True if this is the oldest reply owed.
    #[must_use]
    pub fn is_front(&self, sequence: u32) -> bool {
        sequence == self.front
    }

    /// Removes the oldest entry, after its reply was written to `out`.
    #[inline]
    pub fn pop_front(&mut self) {
        self.owed.pop_front();
        self.front = self.front.wrapping_add(1);
        if self.reply_mode.is_some() {
            self.forget_reply_mode();
        }
        if !self.pushes.is_empty() {
            self.release_pushes();
        }
    }

    /// Moves replies to `out`, in order, as long as the next one is there.
    pub fn settle(&mut self, received: &Received) {
        while let Some(owed) = self.owed.front_mut() {
            let before = self.out.len();
            match owed {
                Owed::Ready { lane, start, length } => {
                    self.out.extend_from_slice(received.get(*lane, *start, *length));
                }
                Owed::Early { start, length } => {
                    self.out.extend_from_slice(self.parked.get(*start, *length));
                    self.parked.moved_on();
                }
                Owed::Held(reply) => {
                    self.held -= reply.len();
                    append(&mut self.out, reply);
                }
                _ => break,
            }
            if self.drops(self.front) {
                self.out.truncate(before);
            }
            self.pop_front();
        }
        self.parked.tidy();
    }

    /// Stores a reply in its entry, in memory of its own.
    pub fn hold(&mut self, sequence: u32, reply: Vec<u8>) {
        self.held += reply.len();
        if let Some(owed) = self.owed_at(sequence) {
            *owed = Owed::Held(Box::new(reply));
        }
    }

    /// Adds a reply to `out` if it is the next; otherwise stores it in its entry.
    pub fn put(&mut self, sequence: u32, reply: &[u8]) {
        if self.is_front(sequence) {
            if !self.drops(sequence) {
                self.out.extend_from_slice(reply);
            }
            self.pop_front();
        } else {
            self.hold(sequence, reply.to_vec());
        }
    }

    /// Copies an early reply until its turn comes. True if that made the client much larger, so
    /// that its size must be checked.
    pub fn park(&mut self, sequence: u32, reply: &[u8]) -> bool {
        let Some((start, length)) = self.parked.keep(reply) else {
            self.hold(sequence, reply.to_vec());
            return true;
        };
        if let Some(owed) = self.owed_at(sequence) {
            *owed = Owed::Early { start, length };
        }
        false
    }

    /// Bytes buffered for it in either direction.
    #[must_use]
    pub fn buffered(&self) -> usize {
        let queued = self.multi.as_ref().map_or(0, |multi| multi.size());
        let cut = self.request.as_ref().map_or(0, |request| request.size());
        self.pending() + self.held + self.parked.len() + self.rx.len() + cut + queued
    }

    /// Bytes not yet written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Like `put`, but a long reply is moved instead of copied; it still has to be settled.
    pub(crate) fn put_from(&mut self, sequence: u32, reply: &mut Vec<u8>) {
        if reply.len() > UNREAD_LIMIT {
            self.hold(sequence, std::mem::take(reply));
        } else {
            self.put(sequence, reply);
        }
    }

    /// The row of the command that was looked up last.
    #[inline]
    #[must_use]
    pub fn last_row(&self) -> u32 {
        u32::try_from(self.last_command).unwrap_or(u32::MAX)
    }

    /// Sets whether CLIENT CACHING is in effect.
    pub(crate) fn set_caching(&mut self, caching: bool) {
        if let Some(mode) = &mut self.session.tracking {
            mode.caching = caching;
        }
    }
}

/// Appends a reply; a long one is moved instead of copied if `out` is empty.
pub(crate) fn append(out: &mut Vec<u8>, reply: &mut Vec<u8>) {
    if out.is_empty() && reply.len() > UNREAD_LIMIT {
        std::mem::swap(out, reply);
    } else {
        out.extend_from_slice(reply);
    }
}
