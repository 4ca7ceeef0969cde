//! A queue between threads, with a bell.

use crate::net::socket::persist;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A queue with a bell: an event file descriptor that is readable while letters wait.
#[derive(Debug)]
pub struct Mailbox<T> {
    inside: Mutex<Inside<T>>,
    bell: OwnedFd,
}

#[derive(Debug)]
struct Inside<T> {
    letters: Vec<T>,
    /// The bell was rung for the letters that wait.
    has_rung: bool,
    /// The bell is still readable.
    is_loud: bool,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub fn new() -> rustix::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let inside = Inside { letters: Vec::new(), has_rung: false, is_loud: false };
        Ok(Self { inside: Mutex::new(inside), bell })
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a letter, and rings the bell unless it is ringing. If the ring fails, the next letter
    /// rings again. Besides, the reader checks its mailbox once a second.
    pub fn post(&self, letter: T) {
        let mut inside = self.lock();
        inside.letters.push(letter);
        if !inside.has_rung {
            let one = 1u64.to_ne_bytes();
            inside.has_rung = persist(|| rustix::io::write(&self.bell, &one)).is_ok();
            inside.is_loud |= inside.has_rung;
        }
    }

    /// True if no letter waits.
    pub fn is_empty(&self) -> bool {
        self.lock().letters.is_empty()
    }

    /// Takes all letters, oldest first, and silences the bell.
    pub fn take(&self) -> Vec<T> {
        let mut inside = self.lock();
        if inside.is_loud {
            let silenced = persist(|| rustix::io::read(&self.bell, &mut [0u8; 8]));
            inside.is_loud = !matches!(silenced, Ok(_) | Err(Errno::AGAIN));
        }
        inside.has_rung = false;
        std::mem::take(&mut inside.letters)
    }

    /// The bell, to poll on.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
