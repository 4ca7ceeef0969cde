//! A lane: one connection to an instance, in one session state, shared by every client in it.
//!
//! ```text
//! out  ──write──►  instance  ──read──►  received
//! expects: whose reply comes next; pushed when a command is appended to `out`,
//!          popped when a reply has been cut from `received`. Nothing else pairs them.
//! ```
//! Invariant: nothing on a shared lane changes its state, every command on it has exactly one
//! reply, and a lane that shows anything else is closed, never reused.

use crate::base::own_names::{ADMIN, Name};
use crate::lane::script_fences::Fences;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use crate::resp::request::{push_array, push_bulk};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;

/// Unsent bytes above which clients that need this lane are not read.
pub const OUT_LIMIT: usize = 1024 * 1024;

/// An emptied buffer larger than this is given back.
pub(crate) const BUFFER_KEEP: usize = 1024 * 1024;

/// What a lane's connection has been told, once, before the first command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// SELECT.
    pub db: u32,
    /// HELLO 3.
    pub resp3: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// AUTH as this restricted user; 0: as one who may do everything.
    pub user: u32,
    /// Which of several lanes in this state; 0 is the one for short replies (`turn/striping.rs`).
    pub stripe: u8,
}

/// What a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Duty {
    /// The commands of every client in its state.
    Shared,
    /// Something big is on it: it answers what it was sent, and is sent nothing more.
    Aside,
    /// One client's command that still comes.
    Upload,
    /// Scripts, which have a lane of their own.
    Scripts,
    /// A part of one commit.
    Commit,
    /// What locked pops ask, of every client in its state.
    LockedPops,
    /// Nothing: it was proved clean, and waits for its next duty.
    Spare,
}

impl Duty {
    /// True for a lane that has something big.
    pub(crate) fn is_aside(self) -> bool {
        matches!(self, Self::Aside | Self::Upload)
    }
}

/// What a look asks of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Whether the key with this number is there: one reply.
    IsThere(usize),
    /// To take something, for the request with this number: in a transaction, three replies.
    Take(usize),
}

/// A question of a locked pop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// Which locked pop, and its lock: the place may be another's by now.
    pub(crate) pop: usize,
    pub(crate) token: u64,
    pub(crate) asked: Asked,
    /// Replies that have not come.
    pub(crate) to_come: usize,
    /// It ends here, counted as commands are.
    end: u32,
}

/// Whose reply comes next.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The client's place.
    pub client: u32,
    /// Which client had that place.
    pub generation: u32,
    /// Which of its replies.
    pub sequence: u32,
    /// The command ends here, counted in bytes appended to the lane, modulo 2^32.
    pub end: u32,
}

/// One connection to an instance.
#[derive(Debug)]
pub struct Lane {
    /// Its socket.
    pub fd: OwnedFd,
    /// The instance.
    pub instance: usize,
    /// The set it belongs to.
    pub(crate) set: u32,
    pub(crate) duty: Duty,
    /// Not read, because all it has is for one client, which does not read either.
    pub(crate) is_paused: bool,
    /// Commands to write.
    pub out: Vec<u8>,
    /// How many bytes of them are written.
    sent: usize,
    /// Bytes of commands appended and written since the lane opened, modulo 2^32.
    appended: u32,
    written: u32,
    /// Tells it from others that had the same place.
    pub serial: u64,
    /// Replies handed out since it opened.
    pub answered: u64,
    /// Whose replies are to come, in order.
    pub expects: VecDeque<Expect>,
    /// Replies of the opening still to come; commands wait until they are all good.
    pub(crate) opening: usize,
    /// The opening was refused because a script runs: so would every command have been.
    pub(crate) busy: Option<Vec<u8>>,
    pub(crate) cutter: Cutter,
    /// The scripts in flight, if it is for scripts.
    pub(crate) scripts: Option<Box<Fences>>,
    /// The commit that uses it, if one does.
    pub(crate) commit: Option<usize>,
    /// Questions of locked pops whose answers are to come, in order.
    pub(crate) questions: VecDeque<Question>,
    /// Replies were cut up to here.
    pub(crate) start: usize,
    /// The socket may have more to read.
    pub readable: bool,
    /// The instance has hung up; no further edge will say so.
    pub hung_up: bool,
    /// We wait for room in the socket.
    pub wants_write: bool,
    /// In the worker's list of lanes to write to.
    pub is_dirty: bool,
    /// To be closed at the end of the turn.
    pub is_broken: bool,
    /// Clients behind this lane's full buffer.
    pub waiting: Vec<(u32, u32)>,
    pub(crate) last_used: u64,
}

impl Lane {
    /// A lane whose opening is on its way and has `opening` replies.
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

    /// True while nobody waits for anything here.
    pub(crate) fn is_idle(&self) -> bool {
        self.expects.is_empty()
            && self.questions.is_empty()
            && self.opening == 0
            && !matches!(self.duty, Duty::Upload | Duty::Commit)
            && !self.is_dirty
            && !self.is_broken
    }

    /// True if it may have something to read, and shall be read.
    pub(crate) fn may_read(&self) -> bool {
        self.readable && !self.is_broken && !self.is_paused
    }

    /// How many of the clients that wait for this lane may go on.
    pub(crate) fn room(&self) -> usize {
        match &self.scripts {
            // Once nothing is on its way nobody else would wake them.
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

    /// Adds bytes of a command: those that the socket takes at once are not copied.
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) {
        let mut written = 0;
        // Should the instance be gone, whoever writes the rest will see that.
        if self.opening == 0
            && self.out.is_empty()
            && let Io::Moved(moved) = socket::write(&self.fd, bytes)
        {
            written = moved;
            self.written = self.written.wrapping_add(u32::try_from(moved).unwrap_or(u32::MAX));
        }
        self.out.extend_from_slice(&bytes[written..]);
    }

    /// Registers that the bytes now at the end of `out`, `length` of them, are one command.
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

    /// Registers that the bytes now at the end of `out`, `length` of them, are a question.
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

    /// The same of a question.
    pub(crate) fn was_asked(&self, question: &Question) -> bool {
        self.is_written(question.end)
    }

    fn is_written(&self, end: u32) -> bool {
        self.written.wrapping_sub(end) < u32::MAX / 2
    }

    /// True if commands wait to be written and may be.
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

/// What an instance knows a lane of a worker by: the coordinator waits until those of a stopped
/// instance are gone.
pub(crate) fn name(worker: usize, serial: u64) -> Vec<u8> {
    Name::Lane.of(format!("{worker}-{serial}").as_bytes())
}

/// The commands that put a new connection into a state, and how many replies they have. Its user
/// comes last: who is restricted may not be allowed the others.
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

/// Bytes of a reply, or of an argument, from which on it is big: others would wait for it for about
/// a millisecond, as long as it takes to open a lane and fill it.
pub(crate) const BIG: usize = 1024 * 1024;
