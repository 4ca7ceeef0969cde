//! One locked pop: for the first key of some that has something, of the clients that want the same ones at the
//! same time. `commands/locked_pop.rs` is what moves it on.

use crate::client::attempt::Attempt;
use crate::lane::lane::Expect;
use crate::tables::lock::Fingerprint;
use slab::Slab;

/// More begin another locked pop: a lock is not to be held for long.
const REQUESTS_MOST: usize = 128;

/// More at the same time are left to the coordinator: each is looked at by all others.
pub(crate) const POPS_MOST: usize = 500;

/// And who names more keys is left to the coordinator.
pub(crate) const KEYS_MOST: usize = 128;

/// One locked pop for some keys.
#[derive(Debug)]
pub(crate) struct LockedPop {
    pub(crate) token: u64,
    pub(crate) stage: Stage,
    /// The database, and the set of its lanes.
    pub(crate) db: u32,
    pub(crate) set: u32,
    pub(crate) keys: Vec<Key>,
    pub(crate) requests: Vec<PopRequest>,
    /// Keys of which it is not known whether they are there; requests that have not ended.
    pub(crate) missing: usize,
    pub(crate) open: usize,
    /// An instance has not said what is there.
    pub(crate) is_refused: bool,
    /// Lanes that were lost before they told what was taken: serial number, and number of the key.
    pub(crate) lost: Vec<(u64, usize)>,
    /// When it takes too long, in monotonic nanoseconds.
    pub(crate) deadline: u64,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its lock.
    Locking,
    /// It asks which keys are there.
    Asking,
    /// Its requests take what is.
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
    /// Whose, and which of its replies.
    pub(crate) expect: Expect,
    pub(crate) attempt: Attempt,
    /// The numbers of its keys among those of the locked pop, in its order.
    pub(crate) order: Vec<usize>,
    /// How many of them it has tried.
    pub(crate) tried: usize,
    pub(crate) has_ended: bool,
}

impl LockedPop {
    /// True if somebody looks for one of these keys.
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
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// When something must be done although nothing has happened.
    pub(crate) fn deadline(&self) -> u64 {
        self.running.iter().map(|(_, pop)| pop.deadline).min().unwrap_or(u64::MAX)
    }

    /// The lock of the last locked pop for one of these keys.
    pub(crate) fn last_for(&self, keys: &[Fingerprint]) -> Option<u64> {
        let locked_pops = self.running.iter().filter(|(_, pop)| pop.is_for(keys));
        locked_pops.map(|(_, pop)| pop.token).max()
    }

    /// True if there is still one, up to that with this lock.
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

    /// Joins a locked pop that has not begun, if one is for all these keys.
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
                // Most have them in the same order.
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
