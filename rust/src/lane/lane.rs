//! A lane: one connection to an instance in one session state, shared by all clients in this state.
//!
//! ```text
//! out  ──write──►  instance  ──read──►  received
//! expects: the client of each reply to come; pushed when a command is appended to `out`,
//!          popped when a reply has been cut from `received`. Nothing else pairs them.
//! ```
//! Invariant: nothing on a shared lane changes its state, and every command on it has exactly one
//! reply. A lane that shows anything else is closed, never reused.

use crate::base::own_names::{ADMIN, Name};
use crate::lane::script_fences::Fences;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use crate::resp::request::{push_array, push_bulk};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;

/// Unsent bytes above which the clients that need this lane are not read.
pub const OUT_LIMIT: usize = 1024 * 1024;

/// A larger buffer is freed when it is empty.
pub(crate) const BUFFER_KEEP: usize = 1024 * 1024;

/// The session state that a lane's connection is put into once, before the first command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// SELECT.
    pub db: u32,
    /// HELLO 3.
    pub resp3: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// AUTH as this restricted user; 0: as a user with all rights.
    pub user: u32,
    /// The number of the lane among several in this state; 0 is the one for short replies
    /// (`turn/striping.rs`).
    pub stripe: u8,
}

/// The purpose of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Duty {
    /// It carries the commands of all clients in its state.
    Shared,
    /// It is detached because of a large reply: it delivers the replies due, and gets no new
    /// commands.
    Aside,
    /// It carries one client's command that is still arriving.
    Upload,
    /// It carries scripts only.
    Scripts,
    /// It carries a part of one commit.
    Commit,
    /// It carries the commands of locked pops, for all clients in its state.
    LockedPops,
    /// It has no purpose now: it has nothing in flight, and waits for its next duty.
    Spare,
}

impl Duty {
    /// True for a lane used for a large command or reply.
    pub(crate) fn is_aside(self) -> bool {
        matches!(self, Self::Aside | Self::Upload)
    }
}

/// What a locked pop asks of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Whether the key with this number exists: one reply.
    IsThere(usize),
    /// To pop for the request with this number: in a transaction, three replies.
    Take(usize),
}

/// A question of a locked pop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// The locked pop's place, and its lock, because the place may have been reused.
    pub(crate) pop: usize,
    pub(crate) token: u64,
    pub(crate) asked: Asked,
    /// The replies that have not come.
    pub(crate) to_come: usize,
    /// The end of the question, counted as for commands.
    end: u32,
}

/// The destination of a reply.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The client's place.
    pub client: u32,
    /// The client's generation at that place.
    pub generation: u32,
    /// The sequence number of the reply.
    pub sequence: u32,
    /// The end of the command, in bytes appended to the lane, modulo 2^32.
    pub end: u32,
}

/// One connection to an instance.
#[derive(Debug)]
pub struct Lane {
    /// Its socket.
    pub fd: OwnedFd,
    /// The instance.
    pub instance: usize,
    /// The set that the lane belongs to.
    pub(crate) set: u32,
    pub(crate) duty: Duty,
    /// The lane is not read: all its replies are for one client, which does not read either.
    pub(crate) is_paused: bool,
    /// Commands to write.
    pub out: Vec<u8>,
    /// The number of these bytes that are written.
    sent: usize,
    /// The bytes of commands appended and written since the lane opened, modulo 2^32.
    appended: u32,
    written: u32,
    /// Distinguishes the lane from earlier ones at the same place.
    pub serial: u64,
    /// The replies delivered since the lane opened.
    pub answered: u64,
    /// The destinations of the replies to come, in order.
    pub expects: VecDeque<Expect>,
    /// The replies to the opening still to come; commands wait until all are successful.
    pub(crate) opening: usize,
    /// The error with which the opening was refused because a script runs: every command would have
    /// got the same.
    pub(crate) busy: Option<Vec<u8>>,
    pub(crate) cutter: Cutter,
    /// The scripts in flight, if this is a lane for scripts.
    pub(crate) scripts: Option<Box<Fences>>,
    /// The commit that uses the lane, if any.
    pub(crate) commit: Option<usize>,
    /// The questions of locked pops that await replies, in order.
    pub(crate) questions: VecDeque<Question>,
    /// The offset up to which replies were cut.
    pub(crate) start: usize,
    /// The socket may have more to read.
    pub readable: bool,
    /// The instance has hung up; the poller reports that no more.
    pub hung_up: bool,
    /// The socket is full; the lane waits until it is writable.
    pub wants_write: bool,
    /// It is in the worker's list of lanes to write to.
    pub is_dirty: bool,
    /// It is closed at the end of the turn.
    pub is_broken: bool,
    /// Clients that wait for room in this lane's buffer.
    pub waiting: Vec<(u32, u32)>,
    pub(crate) last_used: u64,
}

impl Lane {
    /// A lane whose opening is in flight; `opening` is the number of its replies.
    #[must_use]
    pub fn new(fd: OwnedFd, instance: usize, set: u32, opening: usize, now: u64) -> Self {
        Self {
            fd,
            instance,
            set,
            duty: Duty::Spare,
            is_paused: false,
            out: Vec::new(),
            sent: 0,
            appended: 0,
            written: 0,
            serial: 0,
            answered: 0,
            expects: VecDeque::new(),
            opening,
            busy: None,
            cutter: Cutter::default(),
            scripts: None,
            commit: None,
            questions: VecDeque::new(),
            start: 0,
            readable: false,
            hung_up: false,
            wants_write: false,
            is_dirty: false,
            is_broken: false,
            waiting: Vec::new(),
            last_used: now,
        }
    }

    /// True while nothing is awaited on this lane.
    pub(crate) fn is_idle(&self) -> bool {
        self.expects.is_empty()
            && self.questions.is_empty()
            && self.opening == 0
            && !matches!(self.duty, Duty::Upload | Duty::Commit)
            && !self.is_dirty
            && !self.is_broken
    }

    /// True if the lane may have something to read and should be read.
    pub(crate) fn may_read(&self) -> bool {
        self.readable && !self.is_broken && !self.is_paused
    }

    /// The number of waiting clients that may go on.
    pub(crate) fn room(&self) -> usize {
        match &self.scripts {
            // If nothing is in flight, no reply would wake the others.
            Some(fences) if !self.is_broken && !fences.is_idle() => fences.room(),
            _ => usize::MAX,
        }
    }

    fn count(&mut self, length: usize) {
        self.appended = self.appended.wrapping_add(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// True while a client that needs this lane must wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent >= OUT_LIMIT
    }

    /// True while bytes wait to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Adds bytes of a command. Bytes that the socket takes at once are not copied.
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) {
        let mut written = 0;
        // If the instance is gone, the next write reports that.
        if self.opening == 0
            && self.out.is_empty()
            && let Io::Moved(moved) = socket::write(&self.fd, bytes)
        {
            written = moved;
            self.written = self.written.wrapping_add(u32::try_from(moved).unwrap_or(u32::MAX));
        }
        self.out.extend_from_slice(&bytes[written..]);
    }

    /// Registers the last `length` bytes of `out` as one command.
    ///
    /// # Panics
    /// Never: places are fewer than descriptors.
    pub fn expect(
        &mut self,
        client: usize,
        generation: u32,
        sequence: u32,
        length: usize,
        now: u64,
    ) {
        self.count(length);
        let client = u32::try_from(client).expect("descriptors fit");
        self.expects.push_back(Expect { client, generation, sequence, end: self.appended });
        self.last_used = now;
    }

    /// Registers the last `length` bytes of `out` as a question.
    pub(crate) fn ask(&mut self, (pop, token): (usize, u64), asked: Asked, length: usize) {
        let to_come = if matches!(asked, Asked::Take(_)) { 3 } else { 1 };
        self.count(length);
        self.questions.push_back(Question { pop, token, asked, to_come, end: self.appended });
    }

    /// True if every byte of the command was written.
    #[must_use]
    pub fn was_sent(&self, expect: &Expect) -> bool {
        self.is_written(expect.end)
    }

    /// True if every byte of the question was written.
    pub(crate) fn was_asked(&self, question: &Question) -> bool {
        self.is_written(question.end)
    }

    fn is_written(&self, end: u32) -> bool {
        self.written.wrapping_sub(end) < u32::MAX / 2
    }

    /// True if there are commands to write and they may be written.
    #[must_use]
    pub fn can_write(&self) -> bool {
        self.opening == 0 && self.sent < self.out.len()
    }

    /// Writes once.
    pub fn flush(&mut self) -> Io {
        let io = socket::write(&self.fd, &self.out[self.sent..]);
        if let Io::Moved(written) = io {
            self.sent += written;
            self.written = self.written.wrapping_add(u32::try_from(written).unwrap_or(u32::MAX));
            if self.sent == self.out.len() {
                self.sent = 0;
                if self.out.capacity() > BUFFER_KEEP {
                    self.out = Vec::new();
                } else {
                    self.out.clear();
                }
            } else if self.sent > OUT_LIMIT && self.sent >= self.out.len() / 2 {
                self.out.drain(..self.sent);
                self.out.shrink_to(2 * self.out.len());
                self.sent = 0;
            }
        }
        io
    }
}

/// The name of a worker's lane at an instance. The coordinator waits until the lanes of a stopped
/// instance have disappeared.
pub(crate) fn name(worker: usize, serial: u64) -> Vec<u8> {
    Name::Lane.of(format!("{worker}-{serial}").as_bytes())
}

/// The commands that put a new connection into a state, and the number of their replies. AUTH as
/// the user comes last, because a restricted user may have no rights for the others.
pub(crate) fn opening(
    state: State,
    name: &[u8],
    user: Option<&[u8]>,
    password: &[u8],
) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut count = 0;
    let mut command = |args: &[&[u8]]| {
        push_array(&mut out, args.len());
        for arg in args {
            push_bulk(&mut out, arg);
        }
        count += 1;
    };
    if state.resp3 {
        command(&[b"HELLO", b"3", b"AUTH", ADMIN, password, b"SETNAME", name]);
    } else {
        command(&[b"AUTH", ADMIN, password]);
        command(&[b"CLIENT", b"SETNAME", name]);
    }
    if state.db != 0 {
        command(&[b"SELECT", state.db.to_string().as_bytes()]);
    }
    if state.no_touch {
        command(&[b"CLIENT", b"NO-TOUCH", b"ON"]);
    }
    if let Some(user) = user {
        command(&[b"AUTH", user, password]);
    }
    (out, count)
}

/// The least size of a large reply or argument, in bytes. Other commands would wait for it for
/// about a millisecond, which is the time to open a lane and fill it.
pub(crate) const BIG: usize = 1024 * 1024;
