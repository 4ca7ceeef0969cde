//! A worker's commits: the open batches, the running ones, and how long each may take.

use crate::work::commit::Commit;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// The most nanoseconds that a commit waits for its lock. The holder of a key's lock, or a command
/// in flight to one of its instances, may take for ever.
pub(crate) const LOCK_NANOSECONDS: u64 = 500_000_000;

/// The most nanoseconds in which an instance prepares its part; after that, the commit is aborted.
pub(crate) const PREPARE_NANOSECONDS: u64 = 200_000_000;

/// The most nanoseconds in which an instance runs its part; after that, the worker stops waiting.
pub(crate) const RUN_NANOSECONDS: u64 = 5_000_000_000;

/// More nanoseconds for each byte: servers take longer for large commands (a tenth of a second per
/// MB).
const NANOSECONDS_A_BYTE: u64 = 100;

/// More nanoseconds for each key, because a server may have to free its value.
const NANOSECONDS_A_KEY: u64 = 5_000;

/// The commits of a worker.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// By leader, and whether replies are in RESP3.
    pub(crate) queues: HashMap<(usize, bool), Queue>,
    /// Queues whose next commit may start.
    pub(crate) due: Vec<(usize, bool)>,
    pub(crate) running: Slab<Commit>,
    /// The tokens of locks that were granted since the last check.
    pub(crate) granted: Vec<u64>,
    /// By instance: until when the coordinator runs writes with keys there.
    late: Vec<u64>,
    pub(crate) last_name: u64,
    /// When to request the deletion of records; 0: there are none.
    pub(crate) forget_at: u64,
}

/// The commits of one leader.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Commits that have not started, oldest first; writes can still join the last ones.
    pub(crate) forming: VecDeque<Commit>,
    pub(crate) is_running: bool,
}

impl Commits {
    /// A lock was granted.
    pub(crate) fn locked(&mut self, token: u64) {
        self.granted.push(token);
    }

    /// The next time at which something must be done without any event.
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

    /// The replies that a part of a commit is owed.
    pub(crate) fn to_come(&self, key: usize, instance: usize) -> usize {
        self.running.get(key).map_or(0, |commit| commit.parts[instance].to_come)
    }

    /// True if an instance has recently failed to answer in time.
    pub(crate) fn is_late(&self, instance: usize, now: u64) -> bool {
        self.late.get(instance).is_some_and(|&until| now < until)
    }
}

impl Commit {
    /// The nanoseconds that it may take longer than a small commit.
    pub(crate) fn patience(&self) -> u64 {
        self.bytes() as u64 * NANOSECONDS_A_BYTE + self.keys() as u64 * NANOSECONDS_A_KEY
    }
}
