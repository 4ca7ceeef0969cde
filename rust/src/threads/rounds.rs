//! Rounds: after a round, every worker has read what its clients had sent before the round began.
//!
//! On one server, a client that has sent SUBSCRIBE gets every message that is published by a
//! command sent later. Here two workers read their clients at different times, so PUBLISH waits for
//! a round:
//!
//! ```text
//! PUBLISH was read ─► the turn's publishers ask for a round ─► workers that have clients are woken
//!                  ─► each polls and reads its sockets, ends its turn ─► the last wakes the asker
//!                  ─► PUBLISH is taken again, and counts all subscribers
//! ```
//! A turn without a round costs one read of a number.

use crate::threads::letters::{Door, is_concerned};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of rounds that all workers share.
#[derive(Debug)]
pub struct Rounds {
    /// The newest round.
    pub(crate) asked: AtomicU64,
    /// By worker: the newest round that it has ended.
    pub(crate) ended: Vec<AtomicU64>,
    /// The number of connections that workers have handed to each other so far.
    pub(crate) handed: AtomicU64,
    /// The rounds that are not over, and the worker that asked for each.
    open: Mutex<Vec<(u64, usize)>>,
}

impl Rounds {
    /// The state before the first round.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            asked: AtomicU64::new(0),
            ended: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            handed: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// A connection is about to be handed to another worker. A worker that has ended its round may
    /// thus get a connection that it has not read.
    pub(crate) fn note_handed(&self) {
        self.handed.fetch_add(1, SeqCst);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<(u64, usize)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_over(&self, round: u64, doors: &[Door]) -> bool {
        let has_ended = |index: usize| self.ended[index].load(SeqCst) >= round;
        doors.iter().enumerate().all(|(index, door)| has_ended(index) || !is_concerned(index, door))
    }
}
