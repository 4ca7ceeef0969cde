//! One locked pop takes from the first of some keys that has something, for all clients that want
//! the same keys at the same time. `commands/locked_pop.rs` runs it.

use crate::client::attempt::Attempt;
use crate::lane::lane::Expect;
use crate::tables::lock::Fingerprint;
use slab::Slab;

/// The most requests in one locked pop, because a lock should be held only briefly.
const REQUESTS_MOST: usize = 128;

/// The most locked pops at the same time; the coordinator runs any more. Each costs every other one
/// a check.
pub(crate) const POPS_MOST: usize = 500;

/// The most keys of a request; the coordinator runs larger ones.
pub(crate) const KEYS_MOST: usize = 128;

/// One locked pop for some keys.
#[derive(Debug)]
pub(crate) struct LockedPop {
    pub(crate) token: u64,
    pub(crate) stage: Stage,
    /// The database, and the set of lanes for it.
    pub(crate) db: u32,
    pub(crate) set: u32,
    pub(crate) keys: Vec<Key>,
    pub(crate) requests: Vec<PopRequest>,
    /// The keys whose existence is not known yet; and the requests that have not ended.
    pub(crate) missing: usize,
    pub(crate) open: usize,
    /// An instance did not answer which keys exist.
    pub(crate) is_refused: bool,
    /// Lanes that broke before their reply to a pop came: serial number, and number of the key.
    pub(crate) lost: Vec<(u64, usize)>,
    /// When it takes too long, in monotonic nanoseconds.
    pub(crate) deadline: u64,
}

/// The progress of a locked pop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its lock.
    Locking,
    /// It asks which keys exist.
    Asking,
    /// Its requests pop from the keys that exist.
    Taking,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: Vec<u8>,
    pub(crate) instance: usize,
    pub(crate) is_there: bool,
}

/// One client's command.
#[derive(Debug)]
pub(crate) struct PopRequest {
    /// The client, and which of its replies.
    pub(crate) expect: Expect,
    pub(crate) attempt: Attempt,
    /// Its keys in their order, as numbers of the locked pop's keys.
    pub(crate) order: Vec<usize>,
    /// The number of keys that it has tried.
    pub(crate) tried: usize,
    pub(crate) has_ended: bool,
}

impl LockedPop {
    /// True if an open request wants one of these keys.
    fn is_for(&self, keys: &[Fingerprint]) -> bool {
        self.requests.iter().any(|request| {
            !request.has_ended && request.attempt.keys.iter().any(|key| keys.contains(key))
        })
    }
}

/// The locked pops of a worker.
#[derive(Debug, Default)]
pub(crate) struct LockedPops {
    pub(crate) running: Slab<LockedPop>,
}

impl LockedPops {
    /// Their number.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// The next time at which something must be done without any event.
    pub(crate) fn deadline(&self) -> u64 {
        self.running.iter().map(|(_, pop)| pop.deadline).min().unwrap_or(u64::MAX)
    }

    /// The lock of the newest locked pop for one of these keys.
    pub(crate) fn last_for(&self, keys: &[Fingerprint]) -> Option<u64> {
        let locked_pops = self.running.iter().filter(|(_, pop)| pop.is_for(keys));
        locked_pops.map(|(_, pop)| pop.token).max()
    }

    /// True if a locked pop for these keys still runs whose lock is not newer than this one.
    pub(crate) fn has_up_to(&self, token: u64, keys: &[Fingerprint]) -> bool {
        self.running.iter().any(|(_, pop)| pop.token <= token && pop.is_for(keys))
    }

    /// A locked pop, unless it has ended.
    pub(crate) fn get_mut(&mut self, pop: usize, token: u64) -> Option<&mut LockedPop> {
        self.running.get_mut(pop).filter(|pop| pop.token == token)
    }

    pub(crate) fn find(&self, is_wanted: impl Fn(&LockedPop) -> bool) -> Vec<usize> {
        let found = self.running.iter().filter(|(_, pop)| is_wanted(pop));
        found.map(|(key, _)| key).collect()
    }

    /// Joins a locked pop that has not begun, if it covers all these keys.
    pub(crate) fn join(
        &mut self,
        (db, set): (u32, u32),
        keys: &[Key],
        mut request: PopRequest,
    ) -> Result<(), PopRequest> {
        for (_, pop) in &mut self.running {
            let is_joined = pop.stage == Stage::Locking
                && (pop.db, pop.set) == (db, set)
                && pop.requests.len() < REQUESTS_MOST;
            if !is_joined {
                continue;
            }
            let number = |(at, key): (usize, &Key)| {
                let is_it = |known: &Key| known.name == key.name;
                // Most requests name their keys in the same order.
                if pop.keys.get(at).is_some_and(is_it) {
                    return Some(at);
                }
                pop.keys.iter().position(is_it)
            };
            if let Some(order) = keys.iter().enumerate().map(number).collect() {
                request.order = order;
                pop.requests.push(request);
                pop.open += 1;
                return Ok(());
            }
        }
        Err(request)
    }
}
