//! Connections on which instances name the keys that have changed.
//!
//! The coordinator opens and polls them. Workers also read them before they run a command of a
//! client that tracks: invalidations that an instance sent before its last reply must be handled
//! before the next command.

use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use rustix::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Release;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What a feed has brought other than names of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The reply to `InvalidationFeeds::ping`: all earlier invalidations were read.
    Pong,
    /// Any key may have changed.
    Everything,
    /// The connection is lost.
    Lost,
}

/// One connection for each instance.
#[derive(Debug, Default)]
pub struct InvalidationFeeds {
    invalidation_feeds: Mutex<Vec<(usize, InvalidationFeed)>>,
    pub(crate) count: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct InvalidationFeed {
    pub(crate) fd: OwnedFd,
    pub(crate) received: Vec<u8>,
    pub(crate) cutter: Cutter,
    pub(crate) is_lost: bool,
}

impl InvalidationFeeds {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<(usize, InvalidationFeed)>> {
        self.invalidation_feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a feed of an instance; its socket is non-blocking and in RESP3.
    pub fn open(&self, instance: usize, fd: OwnedFd) {
        let mut invalidation_feeds = self.lock();
        let mut cutter = Cutter::default();
        cutter.takes_pushes = true;
        invalidation_feeds.push((
            instance,
            InvalidationFeed { fd, received: Vec::new(), cutter, is_lost: false },
        ));
        self.count.store(invalidation_feeds.len(), Release);
    }

    /// Closes a feed.
    pub fn close(&self, instance: usize) {
        let mut invalidation_feeds = self.lock();
        invalidation_feeds.retain(|(index, _)| *index != instance);
        self.count.store(invalidation_feeds.len(), Release);
    }

    /// Sends a PING, whose reply shows that all earlier invalidations were sent; false if it could
    /// not be sent.
    pub fn ping(&self, instance: usize) -> bool {
        let invalidation_feeds = self.lock();
        let ear = invalidation_feeds.iter().find(|(index, _)| *index == instance);
        ear.is_some_and(
            |(_, ear)| matches!(socket::write(&ear.fd, PING), Io::Moved(sent) if sent == PING.len()),
        )
    }
}
