//! Connections on which instances publish on their own: scripts, modules, keyspace events.
//!
//! The coordinator opens them, subscribes on them, and polls them. Workers also read them while a
//! client is subscribed to keyspace events: the events of a command are posted before the reply to
//! that command is sent. So if one command waits for the reply to another, their events are in
//! order.
//!
//! The proxy's own commands also cause events. In the block that causes them, messages to a secret
//! channel (marks) enclose them. Such events are kept, to be published as those of the client's
//! command, or dropped. The same is true of what scripts publish there: a run that is repeated has
//! published nothing.

use crate::base::own_names;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use crate::tables::kept_messages::KeptMessages;
use rustix::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of the proxy's own databases that have copies: as in `own_names.py`.
pub(crate) const COPIES: usize = 4;

/// The proxy's subscription to events of all databases. Only kept events are taken from it.
pub(crate) const EVENTS: &[u8] = b"__key[es]*@*__:*";

/// One connection for each instance, and the events that are kept.
#[derive(Debug)]
pub struct EventFeeds {
    pub(crate) links: Vec<Mutex<Option<Upstream>>>,
    kept: Mutex<KeptMessages>,
    /// The channel of marks. The proxy subscribes to it as a pattern, because scripts can list
    /// channels.
    pub marks: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) fd: OwnedFd,
    /// Bytes that could not be written yet.
    pub(crate) out: Vec<u8>,
    pub(crate) received: Vec<u8>,
    pub(crate) cutter: Cutter,
    pub(crate) telling: Telling,
    /// The PINGs of workers that are not answered.
    pub(crate) unanswered: u32,
    /// The coordinator has sent something since it was last notified of a refusal.
    pub(crate) is_busy_news: bool,
    pub(crate) is_lost: bool,
}

/// What is done with the events that come next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Telling {
    /// They are published at once.
    Now,
    /// They are kept under the number of a command and of its step. The databases whose copies are
    /// in the proxy's own databases are given, too.
    Kept(u64, u64, [u64; COPIES]),
    /// The same for `new` events; all others are dropped.
    KeptNew(u64, u64, [u64; COPIES]),
    /// They are published, except `keymiss`.
    Found,
    /// They are dropped.
    Never,
}

/// News of such a connection, for the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The reply to the coordinator's PING with this number.
    Pong(u64),
    /// The instance runs a long script, and has refused what was sent last.
    Busy,
    /// The connection is lost.
    Lost,
}

impl EventFeeds {
    /// Without connections.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn new(instances: usize) -> rustix::io::Result<Self> {
        let links = (0..instances).map(|_| Mutex::default()).collect();
        Ok(Self { links, kept: Mutex::default(), marks: own_names::channel()? })
    }

    pub(crate) fn lock(&self, instance: usize) -> MutexGuard<'_, Option<Upstream>> {
        self.links[instance].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events that are kept, by command.
    pub fn kept(&self) -> MutexGuard<'_, KeptMessages> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection to an instance, which is authenticated, in RESP2, and non-blocking.
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

    /// Closes a connection.
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
                Io::Gone => upstream.out.clear(), // the next read reports it
            }
        }
        true
    }
}
