//! A client: its socket, its session, and the replies it is owed.
//!
//! ```text
//!            front                          owed: one entry a command, oldest first
//!              │
//! out ◄── [ Waiting | Ready | Held | Waiting ]  ◄── commands forwarded
//! ```
//! Invariant: a reply moves to `out` only from the front. So whatever order instances answer in,
//! the client reads its answers in the order of its commands.

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

/// Commands a client may have in flight; above it no more are taken.
pub const OWED_LIMIT: usize = 1024;

/// Bytes of replies that a client has not read above which its commands may have to wait.
pub const UNREAD_LIMIT: usize = 256 * 1024;

/// One connection of an application.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub fd: OwnedFd,
    /// Tells it from others that had the same place.
    pub generation: u32,
    /// Bytes read and not yet forwarded: part of a command, or commands behind a gate.
    pub rx: Input,
    /// How far the command at the front of `rx` has been cut, when it is a long one.
    pub request: Option<Box<Request>>,
    /// Bytes for the client.
    pub out: Vec<u8>,
    /// How many of them are written.
    pub sent: usize,
    /// Replies it is owed, oldest first.
    pub owed: VecDeque<Owed>,
    /// Replies that came early: all `Owed::Early`.
    pub(crate) parked: ReorderBuffer,
    /// Bytes of replies, and of parts, that came early: all `Owed::Held` and `Merging`.
    pub held: usize,
    /// Sequence number of the oldest.
    pub front: u32,
    /// Its lanes: database, protocol, flags.
    pub lane_set: u32,
    /// May run commands.
    pub authenticated: bool,
    /// Its user may not do everything.
    pub is_restricted: bool,
    /// In RESP2 with subscriptions: few commands are allowed.
    pub is_resp2_subscriber: bool,
    /// The last command's row; `usize::MAX` before the first.
    pub last_command: usize,
    /// Whether its commands are taken.
    pub gate: Gate,
    /// Whether it is ending.
    pub closing: Closing,
    /// Its newest write, with `ordered-pipelines`.
    pub(crate) last_write: Option<LastWrite>,
    /// The socket may have more to read.
    pub readable: bool,
    /// The other side has ended its half; no further edge will say so.
    pub hung_up: bool,
    /// Everything that it sends has been read.
    pub has_ended: bool,
    /// It takes no more replies: what it has sent is run all the same, what it is owed is dropped.
    pub is_deaf: bool,
    /// How it ends once its transaction has run: that is never left in the middle.
    pub closing_then: Closing,
    /// We wait for room in the socket.
    pub wants_write: bool,
    /// In the worker's list of clients to write to.
    pub is_dirty: bool,
    /// In the worker's list of clients to read.
    pub is_ready: bool,
    /// Its replies wait a moment for the rest of its pipeline.
    pub is_held: bool,
    /// A command that is sent on while it comes.
    pub(crate) upload: Option<Box<Upload>>,
    /// What may only be pushed behind replies that are still to come.
    pub(crate) pushes: Pushes,
    /// What it is subscribed to, if anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// Between MULTI and EXEC.
    pub multi: Option<Box<Multi>>,
    /// Runs what EXEC was given, one command after the other.
    pub executing: Option<Box<Executing>>,
    /// The coordinator watches keys for it.
    pub is_watching: bool,
    /// The coordinator has heard of it, and wants to hear when it goes.
    pub notify_on_close: bool,
    /// It is told of changed keys.
    pub is_tracking: bool,
    /// Its next command waits a turn, for what it is told.
    pub feed_drained: bool,
    /// What its next command waits for.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// Writes to it that had much, lately.
    pub(crate) bulky_writes: u8,
    /// It uses one of the lanes for bulky replies.
    pub(crate) is_striped: bool,
    /// Bytes counted for it in the worker's total.
    pub accounted: usize,
    /// A lane that has something big was set aside while this client waited for it, too: before
    /// it sends on another, everything is answered.
    pub(crate) waits_aside: bool,
    /// A lane is not read because this client does not read.
    pub(crate) pauses_lane: bool,
    /// Replies that it does not want, if there are any.
    pub reply_mode: Option<Box<ReplyMode>>,
    /// The rest, apart so that the hot part is small.
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

    /// The number of the next reply.
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

    /// Once every reply is wanted again, there is nothing to look at any more.
    fn forget_reply_mode(&mut self) {
        if self.reply_mode.as_mut().is_some_and(|reply_mode| reply_mode.is_over(self.front)) {
            self.reply_mode = None;
        }
    }

    /// A command has been taken to which there is no reply: CLIENT REPLY SKIP was for it.
    pub fn skip_nothing(&mut self) {
        let next = self.next_sequence();
        if let Some(reply_mode) = &mut self.reply_mode {
            reply_mode.answered(next);
            self.forget_reply_mode();
        }
    }

    /// Adds a reply that is still to come; its sequence number.
    #[inline]
    pub fn owe(&mut self, owed: Owed) -> u32 {
        let sequence = self.next_sequence();
        self.owed.push_back(owed);
        sequence
    }

    /// Answers a command right away, behind what is owed before it.
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

    /// Takes the oldest entry off, its reply having been written to `out`.
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

    /// Moves every reply that is there and next in order to `out`.
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

    /// Puts a reply where it is owed, in memory of its own.
    pub fn hold(&mut self, sequence: u32, reply: Vec<u8>) {
        self.held += reply.len();
        if let Some(owed) = self.owed_at(sequence) {
            *owed = Owed::Held(Box::new(reply));
        }
    }

    /// Puts a reply where it is owed: to `out`, if it is its turn.
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

    /// Copies a reply that came early and still waits for its turn; true if that made this client
    /// much larger, so that someone should look at its size.
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

    /// Puts a reply where it is owed; a long one is taken, and is still to be settled.
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

    /// CLIENT CACHING holds, or does no more.
    pub(crate) fn set_caching(&mut self, caching: bool) {
        if let Some(mode) = &mut self.session.tracking {
            mode.caching = caching;
        }
    }
}

/// Appends a reply; a long one is not copied, if nothing stands before it.
pub(crate) fn append(out: &mut Vec<u8>, reply: &mut Vec<u8>) {
    if out.is_empty() && reply.len() > UNREAD_LIMIT {
        std::mem::swap(out, reply);
    } else {
        out.extend_from_slice(reply);
    }
}
