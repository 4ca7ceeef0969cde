//! A worker's commits: that which forms, those which run, and how long each may take.

use crate::work::commit::Commit;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// Nanoseconds in which a commit has its lock: what has one of its keys, or is in flight to one of its
/// instances, may take for ever.
pub(crate) const LOCK_NANOSECONDS: u64 = 500_000_000;

/// Nanoseconds in which an instance has prepared its part, or the commit is given up.
pub(crate) const PREPARE_NANOSECONDS: u64 = 200_000_000;

/// Nanoseconds in which an instance has run its part, or nobody waits for it any more.
pub(crate) const RUN_NANOSECONDS: u64 = 5_000_000_000;

/// Nanoseconds more for each byte: what is large takes a server longer (a MB a tenth of a second).
const NANOSECONDS_A_BYTE: u64 = 100;

/// The same for each key, of which a server may have to free the value.
const NANOSECONDS_A_KEY: u64 = 5_000;

/// The commits of a worker.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// By the instance that decides, and whether replies are in RESP3.
    pub(crate) queues: HashMap<(usize, bool), Queue>,
    /// Queues of which the next may start.
    pub(crate) due: Vec<(usize, bool)>,
    pub(crate) running: Slab<Commit>,
    /// Locks that hold since somebody last looked.
    pub(crate) granted: Vec<u64>,
    /// Until when writes with keys on an instance are left to the coordinator.
    late: Vec<u64>,
    pub(crate) last_name: u64,
    /// When to have records deleted; 0: there are none.
    pub(crate) forget_at: u64,
}

/// The commits for which one instance decides.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Those that may still be joined come last.
    pub(crate) forming: VecDeque<Commit>,
    pub(crate) is_running: bool,
}

impl Commits {
    /// A lock holds.
    pub(crate) fn locked(&mut self, token: u64) {
        self.granted.push(token);
    }

    /// When something must be done although nothing has happened.
    pub(crate) fn deadline(&self) -> u64 {
        if !self.due.is_empty() {
            return 0;
        }
        let forget_at = if self.forget_at > 0 { self.forget_at } else { u64::MAX };
        self.running
            .iter()
            .map(|(_, commit)| commit.deadline)
            .min()
            .unwrap_or(u64::MAX)
            .min(forget_at)
    }

    pub(crate) fn note_late(&mut self, instance: usize, until: u64) {
        if self.late.len() <= instance {
            self.late.resize(instance + 1, 0);
        }
        self.late[instance] = until;
    }

    /// Replies that a part of a commit is owed.
    pub(crate) fn to_come(&self, key: usize, instance: usize) -> usize {
        self.running.get(key).map_or(0, |commit| commit.parts[instance].to_come)
    }

    /// True if an instance has not answered in time lately.
    pub(crate) fn is_late(&self, instance: usize, now: u64) -> bool {
        self.late.get(instance).is_some_and(|&until| now < until)
    }
}

impl Commit {
    /// Nanoseconds more than one that is small may take.
    pub(crate) fn patience(&self) -> u64 {
        self.bytes() as u64 * NANOSECONDS_A_BYTE + self.keys() as u64 * NANOSECONDS_A_KEY
    }
}
