//! Connections on which instances say which keys have changed.
//!
//! The coordinator opens them, and is woken by them. A worker reads them, too, before it runs a
//! command of a client that tracks: what an instance said before it answered the last command must
//! be known before the next one is looked at.

use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::Cutter;
use rustix::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Release;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What an instance has said besides names of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The answer to `Ears::ping`: everything before it is known.
    Pong,
    /// Any key may have changed.
    Everything,
    /// Nothing more will come.
    Lost,
}

/// One connection an instance.
#[derive(Debug, Default)]
pub struct Ears {
    ears: Mutex<Vec<(usize, Ear)>>,
    pub(crate) count: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Ear {
    pub(crate) fd: OwnedFd,
    pub(crate) received: Vec<u8>,
    pub(crate) cutter: Cutter,
    pub(crate) is_lost: bool,
}

impl Ears {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<(usize, Ear)>> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to an instance; its socket is non-blocking and in RESP3.
    pub fn open(&self, instance: usize, fd: OwnedFd) {
        let mut ears = self.lock();
        let mut cutter = Cutter::default();
        cutter.takes_pushes = true;
        ears.push((instance, Ear { fd, received: Vec::new(), cutter, is_lost: false }));
        self.count.store(ears.len(), Release);
    }

    /// Listens no more.
    pub fn close(&self, instance: usize) {
        let mut ears = self.lock();
        ears.retain(|(index, _)| *index != instance);
        self.count.store(ears.len(), Release);
    }

    /// Asks for a sign that everything up to now was said; false if it could not be sent.
    pub fn ping(&self, instance: usize) -> bool {
        let ears = self.lock();
        let ear = ears.iter().find(|(index, _)| *index == instance);
        ear.is_some_and(
            |(_, ear)| matches!(socket::write(&ear.fd, PING), Io::Moved(sent) if sent == PING.len()),
        )
    }
}
