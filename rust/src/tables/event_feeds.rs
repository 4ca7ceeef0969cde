//! Connections on which instances publish by themselves: scripts, modules, keyspace events.
//!
//! The coordinator opens them, subscribes there, and is woken by them. A worker reads them, too, while
//! somebody listens to keyspace events: what an instance has told of a command is posted before the
//! reply to that command leaves. So events of commands of which one waits for the other come in order.
//!
//! Events of what we do ourselves are marked, in the block of commands that causes them, by messages to
//! a channel that nobody else knows: they are kept, to be told as those of the client's command, or
//! dropped. So is what scripts publish there: a run that is made again has published nothing.

use crate::base::own_names;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use crate::tables::kept_messages::KeptMessages;
use rustix::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Databases of ours that have copies: as in `ours.py`.
pub(crate) const COPIES: usize = 4;

/// Our subscription to events of all databases; only those that are kept are taken from it.
pub(crate) const EVENTS: &[u8] = b"__key[es]*@*__:*";

/// One connection an instance, and the events that are kept.
#[derive(Debug)]
pub struct EventFeeds {
    pub(crate) links: Vec<Mutex<Option<Upstream>>>,
    kept: Mutex<KeptMessages>,
    /// The channel of marks; we subscribe to it as to a pattern, because scripts can list channels.
    pub marks: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) fd: OwnedFd,
    /// What could not be written yet.
    pub(crate) out: Vec<u8>,
    pub(crate) received: Vec<u8>,
    pub(crate) cutter: Cutter,
    pub(crate) telling: Telling,
    /// Pings of workers that are not answered.
    pub(crate) unanswered: u32,
    /// The coordinator has sent something, and was not told since that it is refused.
    pub(crate) is_busy_news: bool,
    pub(crate) is_lost: bool,
}

/// What becomes of the events that come now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Telling {
    /// Subscribers hear of them.
    Now,
    /// They are kept under a number, as those of a step of a command. Whose copies are in our databases
    /// is told, too.
    Kept(u64, u64, [u64; COPIES]),
    /// The same of new keys; nobody hears of others.
    KeptNew(u64, u64, [u64; COPIES]),
    /// Subscribers hear of them, but not of what was not found.
    Found,
    /// Nobody does.
    Never,
}

/// What an instance has said to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The answer to its PING with this number.
    Pong(u64),
    /// It runs a script for long, and has refused what was sent last.
    Busy,
    /// Nothing more will come.
    Lost,
}

impl EventFeeds {
    /// None so far.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn new(instances: usize) -> rustix::io::Result<Self> {
        let links = (0..instances).map(|_| Mutex::default()).collect();
        Ok(Self { links, kept: Mutex::default(), marks: own_names::channel()? })
    }

    pub(crate) fn lock(&self, instance: usize) -> MutexGuard<'_, Option<Upstream>> {
        self.links[instance].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of commands.
    pub fn kept(&self) -> MutexGuard<'_, KeptMessages> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to an instance that is logged in, in RESP2, and non-blocking.
    pub fn open(&self, instance: usize, fd: OwnedFd) {
        *self.lock(instance) = Some(Upstream {
            fd,
            out: Vec::new(),
            received: Vec::new(),
            cutter: Cutter::default(),
            telling: Telling::Now,
            unanswered: 0,
            is_busy_news: false,
            is_lost: false,
        });
    }

    /// Ends it.
    pub fn close(&self, instance: usize) {
        *self.lock(instance) = None;
    }

    /// Sends commands; true if nothing is left for `send` to write later.
    pub fn send(&self, instance: usize, commands: &[u8]) -> bool {
        let mut link = self.lock(instance);
        let Some(upstream) = link.as_mut() else { return true };
        upstream.out.extend_from_slice(commands);
        upstream.is_busy_news |= !commands.is_empty();
        while !upstream.out.is_empty() {
            match socket::write(&upstream.fd, &upstream.out) {
                Io::Moved(sent) => drop(upstream.out.drain(..sent)),
                Io::Later => return false,
                Io::Gone => upstream.out.clear(), // reading will say so
            }
        }
        true
    }
}
