//! A lane: one connection to an instance, in one session state, shared by every client in it.
//!
//! ```text
//! out  ──write──►  instance  ──read──►  received
//! expects: whose reply comes next; pushed when a command is appended to `out`,
//!          popped when a reply has been cut from `received`. Nothing else pairs them.
//! ```
//! Invariant: nothing on a shared lane changes its state, every command on it has exactly one
//! reply, and a lane that shows anything else is closed, never reused.

use crate::net::{self, Io};
use crate::reply::{Broken, Cutter, is_error};
use crate::request::{push_array, push_bulk};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// Unsent bytes above which clients that need this lane are not read.
pub const OUT_LIMIT: usize = 1024 * 1024;
/// Bytes a lane is read by; large, because values of 1 KB come in bulk.
const READ_CHUNK: usize = 128 * 1024;
/// An emptied buffer larger than this is given back.
const BUFFER_KEEP: usize = 1024 * 1024;
/// Lanes of one worker; instances allow 10,000 connections.
const LANES_LIMIT: usize = 512;
/// Seconds after which an unused lane is closed.
const IDLE_SECONDS: u64 = 60;

/// What a lane's connection has been told, once, before the first command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// SELECT.
    pub db: u32,
    /// HELLO 3.
    pub resp3: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
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
    set: u32,
    /// Commands to write.
    pub out: Vec<u8>,
    /// How many bytes of them are written.
    sent: usize,
    /// Bytes of commands appended and written since the lane opened, modulo 2^32.
    appended: u32,
    written: u32,
    /// Whose replies are to come, in order.
    pub expects: VecDeque<Expect>,
    /// Replies of the opening still to come; commands wait until they are all good.
    opening: usize,
    cutter: Cutter,
    /// Replies were cut up to here.
    start: usize,
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
    last_used: u64,
}

/// All lanes of a worker.
#[derive(Debug, Default)]
pub struct Lanes {
    open: Slab<Lane>,
    /// What each lane has received, by place: apart from `open`, so that replies can be read
    /// here while lanes change.
    received: Vec<Vec<u8>>,
    sets: Vec<Set>,
    set_places: HashMap<State, u32>,
}

/// The lanes of one state, by instance.
#[derive(Debug)]
struct Set {
    state: State,
    lanes: Vec<Option<u32>>,
}

impl Lanes {
    /// The set for a state; made if new.
    ///
    /// # Panics
    /// Never: databases are limited to far fewer than 2^32.
    pub fn set(&mut self, state: State, instances: usize) -> u32 {
        *self.set_places.entry(state).or_insert_with(|| {
            self.sets.push(Set { state, lanes: vec![None; instances] });
            u32::try_from(self.sets.len() - 1).expect("databases are limited")
        })
    }

    /// The state of a set.
    #[must_use]
    pub fn state(&self, set: u32) -> State {
        self.sets[set as usize].state
    }

    /// The open lane of a set to an instance.
    #[must_use]
    pub fn open_lane(&self, set: u32, instance: usize) -> Option<usize> {
        self.sets[set as usize].lanes[instance].map(|place| place as usize)
    }

    /// The same, to change it.
    pub fn open_lane_mut(&mut self, set: u32, instance: usize) -> Option<(usize, &mut Lane)> {
        let place = self.open_lane(set, instance)?;
        self.open.get_mut(place).map(|lane| (place, lane))
    }

    /// The lane at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Lane> {
        self.open.get(place)
    }

    /// The lane at a place.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Lane> {
        self.open.get_mut(place)
    }

    /// How many lanes are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Places of the lanes to an instance.
    #[must_use]
    pub fn of_instance(&self, instance: usize) -> Vec<usize> {
        self.places(|lane| lane.instance == instance)
    }

    /// Places of the lanes that nobody has used for a while.
    #[must_use]
    pub fn idle(&self, now: u64) -> Vec<usize> {
        self.places(|lane| lane.is_idle() && now > lane.last_used + IDLE_SECONDS)
    }

    fn places(&self, wanted: impl Fn(&Lane) -> bool) -> Vec<usize> {
        self.open.iter().filter(|(_, lane)| wanted(lane)).map(|(place, _)| place).collect()
    }

    fn least_used(&self) -> Option<usize> {
        let idle = self.open.iter().filter(|(_, lane)| lane.is_idle());
        idle.min_by_key(|(_, lane)| lane.last_used).map(|(place, _)| place)
    }

    /// Connects to an instance and sends the opening.
    ///
    /// # Errors
    /// When it cannot be reached, or too many lanes are open.
    pub fn open(
        &mut self,
        set: u32,
        instance: usize,
        socket: &str,
        password: &[u8],
        now: u64,
    ) -> Result<usize, Errno> {
        if self.open.len() >= LANES_LIMIT {
            let unused = self.least_used().ok_or(Errno::MFILE)?;
            self.close(unused);
        }
        let fd = net::connect_unix(socket)?;
        let (hello, opening) = opening(self.state(set), password);
        // A new socket has room for so few bytes, or is not usable.
        if net::write(&fd, &hello) != Io::Moved(hello.len()) {
            return Err(Errno::CONNRESET);
        }
        let place = self.open.insert(Lane {
            fd,
            instance,
            set,
            out: Vec::new(),
            sent: 0,
            appended: 0,
            written: 0,
            expects: VecDeque::new(),
            opening,
            cutter: Cutter::default(),
            start: 0,
            readable: false,
            hung_up: false,
            wants_write: false,
            is_dirty: false,
            is_broken: false,
            waiting: Vec::new(),
            last_used: now,
        });
        if self.received.len() <= place {
            self.received.resize_with(place + 1, Vec::new);
        }
        self.sets[set as usize].lanes[instance] = u32::try_from(place).ok();
        Ok(place)
    }

    /// Forgets a lane that was taken out of service; the socket closes.
    pub fn close(&mut self, place: usize) {
        let lane = self.open.remove(place);
        self.received[place] = Vec::new();
        let current = &mut self.sets[lane.set as usize].lanes[lane.instance];
        if *current == u32::try_from(place).ok() {
            *current = None;
        }
    }

    /// Takes a lane out of service at once: no new command will find it.
    pub fn retire(&mut self, place: usize) {
        let lane = &mut self.open[place];
        lane.is_broken = true;
        let current = &mut self.sets[lane.set as usize].lanes[lane.instance];
        if *current == u32::try_from(place).ok() {
            *current = None;
        }
    }

    /// Bytes received by a lane this turn.
    #[must_use]
    pub fn received(&self, place: usize, start: u32, length: u32) -> &[u8] {
        &self.received[place][start as usize..][..length as usize]
    }

    /// Reads a lane once.
    pub fn fill(&mut self, place: usize) -> Io {
        let lane = &mut self.open[place];
        let buffer = &mut self.received[place];
        let io = net::read(&lane.fd, buffer, READ_CHUNK);
        // A short read has emptied the socket; the next byte will raise a new edge.
        // After a hang-up there is none: read on to the end.
        lane.readable = matches!(io, Io::Moved(read) if read >= READ_CHUNK || lane.hung_up);
        io
    }

    /// Cuts the next reply: where it lies in `received`, and whose it is. Replies of the opening
    /// are checked here and not shown.
    ///
    /// # Errors
    /// `Broken` for anything but a reply that somebody waits for.
    pub fn next_reply(&mut self, place: usize) -> Result<Option<(u32, u32, Expect)>, Broken> {
        loop {
            let lane = &mut self.open[place];
            let buffer = &self.received[place][lane.start..];
            if buffer.is_empty() {
                return Ok(None);
            }
            if lane.expects.is_empty() && lane.opening == 0 {
                return Err(Broken("stray reply"));
            }
            let Some(length) = lane.cutter.cut(buffer)? else {
                return Ok(None);
            };
            let start = lane.start;
            lane.start += length;
            if lane.opening > 0 {
                if is_error(buffer) {
                    return Err(Broken("opening refused"));
                }
                lane.opening -= 1;
                continue;
            }
            let expect = lane.expects.pop_front().ok_or(Broken("stray reply"))?;
            let place =
                |offset: usize| u32::try_from(offset).map_err(|_| Broken("buffer over 4 GB"));
            return Ok(Some((place(start)?, place(length)?, expect)));
        }
    }

    /// The beginning of a large reply that is not complete yet, and whose it is.
    #[must_use]
    pub fn partial(&self, place: usize, at_least: usize) -> Option<(u32, u32, Expect)> {
        let lane = &self.open[place];
        let length = lane.cutter.passed();
        if lane.opening > 0 || length < at_least {
            return None;
        }
        let number = |offset: usize| u32::try_from(offset).ok();
        Some((number(lane.start)?, number(length)?, *lane.expects.front()?))
    }

    /// The bytes of `partial` have been handed on.
    pub fn take_partial(&mut self, place: usize) {
        let lane = &mut self.open[place];
        lane.start += lane.cutter.passed();
        lane.cutter.forget_passed();
    }

    /// Drops what was cut; called once at the end of a turn, when no `Owed::Ready` is left.
    pub fn compact(&mut self, place: usize) {
        let lane = &mut self.open[place];
        let buffer = &mut self.received[place];
        if lane.start == buffer.len() {
            if buffer.capacity() > BUFFER_KEEP {
                *buffer = Vec::new();
            } else {
                buffer.clear();
            }
        } else {
            buffer.drain(..lane.start);
        }
        lane.start = 0;
    }
}

impl Lane {
    /// True while nobody waits for anything here.
    fn is_idle(&self) -> bool {
        self.expects.is_empty() && self.opening == 0 && !self.is_dirty && !self.is_broken
    }

    /// True while a client that needs this lane must wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent >= OUT_LIMIT
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
        self.appended = self.appended.wrapping_add(u32::try_from(length).unwrap_or(u32::MAX));
        let client = u32::try_from(client).expect("descriptors fit");
        self.expects.push_back(Expect { client, generation, sequence, end: self.appended });
        self.last_used = now;
    }

    /// True if every byte of the command was written.
    #[must_use]
    pub fn was_sent(&self, expect: &Expect) -> bool {
        self.written.wrapping_sub(expect.end) < u32::MAX / 2
    }

    /// True if commands wait to be written and may be.
    #[must_use]
    pub fn can_write(&self) -> bool {
        self.opening == 0 && self.sent < self.out.len()
    }

    /// Writes once.
    pub fn flush(&mut self) -> Io {
        let io = net::write(&self.fd, &self.out[self.sent..]);
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
            } else if self.sent > OUT_LIMIT {
                self.out.drain(..self.sent);
                self.sent = 0;
            }
        }
        io
    }
}

/// The commands that put a new connection into a state, and how many replies they have.
fn opening(state: State, password: &[u8]) -> (Vec<u8>, usize) {
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
        command(&[b"HELLO", b"3", b"AUTH", b"default", password]);
    } else {
        command(&[b"AUTH", password]);
    }
    if state.db != 0 {
        command(&[b"SELECT", state.db.to_string().as_bytes()]);
    }
    if state.no_touch {
        command(&[b"CLIENT", b"NO-TOUCH", b"ON"]);
    }
    (out, count)
}
