//! Rounds: every worker has read what its clients had sent when the round was asked for.
//!
//! Who has sent SUBSCRIBE hears what is published by commands that are sent later, as on one server.
//! Two workers read their clients at different times; so a PUBLISH waits for a round:
//!
//! ```text
//! PUBLISH was read ─► the turn's publishers ask for a round ─► workers that have clients are woken
//!                  ─► each looks at its sockets, reads them, ends its turn ─► the last one tells who asked
//!                  ─► PUBLISH is taken again, and counts whoever is subscribed
//! ```
//! Who wants no round pays one look at a number, a turn.

use crate::threads::letters::{Door, is_concerned};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What all workers know of rounds.
#[derive(Debug)]
pub struct Rounds {
    /// The newest one.
    pub(crate) asked: AtomicU64,
    /// By worker: the newest one that it has ended.
    pub(crate) ended: Vec<AtomicU64>,
    /// Connections that workers have handed to each other so far.
    pub(crate) handed: AtomicU64,
    /// Which rounds are not over, and which worker asked for them.
    open: Mutex<Vec<(u64, usize)>>,
}

impl Rounds {
    /// None so far.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            asked: AtomicU64::new(0),
            ended: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            handed: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// A connection is about to be handed to another worker: who has read everything may get some that
    /// he has not.
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
