//! One look: for the first key of some that has something, of the clients that want the same ones at the
//! same time. `commands/search.rs` is what moves it on.

use crate::client::attempt::Attempt;
use crate::lane::lane::Expect;
use crate::tables::lock::Fingerprint;
use slab::Slab;

/// More begin another look: a lock is not to be held for long.
const WISHES_MOST: usize = 128;

/// More at the same time are left to the coordinator: each is looked at by all others.
pub(crate) const LOOKS_MOST: usize = 500;

/// And who names more keys is left to the coordinator.
pub(crate) const KEYS_MOST: usize = 128;

/// One look for some keys.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) token: u64,
    pub(crate) stage: Stage,
    /// The database, and the set of its lanes.
    pub(crate) db: u32,
    pub(crate) set: u32,
    pub(crate) keys: Vec<Key>,
    pub(crate) wishes: Vec<Wish>,
    /// Keys of which it is not known whether they are there; wishes that have not ended.
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
    /// Its wishes take what is.
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
pub(crate) struct Wish {
    /// Whose, and which of its replies.
    pub(crate) expect: Expect,
    pub(crate) attempt: Attempt,
    /// The numbers of its keys among those of the look, in its order.
    pub(crate) order: Vec<usize>,
    /// How many of them it has tried.
    pub(crate) tried: usize,
    pub(crate) has_ended: bool,
}

impl Look {
    /// True if somebody looks for one of these keys.
    fn is_for(&self, keys: &[Fingerprint]) -> bool {
        self.wishes
            .iter()
            .any(|wish| !wish.has_ended && wish.attempt.keys.iter().any(|key| keys.contains(key)))
    }
}

/// The looks of a worker.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pub(crate) running: Slab<Look>,
}

impl Looks {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// When something must be done although nothing has happened.
    pub(crate) fn deadline(&self) -> u64 {
        self.running.iter().map(|(_, look)| look.deadline).min().unwrap_or(u64::MAX)
    }

    /// The lock of the last look for one of these keys.
    pub(crate) fn last_for(&self, keys: &[Fingerprint]) -> Option<u64> {
        let looks = self.running.iter().filter(|(_, look)| look.is_for(keys));
        looks.map(|(_, look)| look.token).max()
    }

    /// True if there is still one, up to that with this lock.
    pub(crate) fn has_up_to(&self, token: u64, keys: &[Fingerprint]) -> bool {
        self.running.iter().any(|(_, look)| look.token <= token && look.is_for(keys))
    }

    /// A look, unless it has ended.
    pub(crate) fn get_mut(&mut self, look: usize, token: u64) -> Option<&mut Look> {
        self.running.get_mut(look).filter(|look| look.token == token)
    }

    pub(crate) fn find(&self, is_wanted: impl Fn(&Look) -> bool) -> Vec<usize> {
        let found = self.running.iter().filter(|(_, look)| is_wanted(look));
        found.map(|(key, _)| key).collect()
    }

    /// Joins a look that has not begun, if one is for all these keys.
    pub(crate) fn join(
        &mut self,
        (db, set): (u32, u32),
        keys: &[Key],
        mut wish: Wish,
    ) -> Result<(), Wish> {
        for (_, look) in &mut self.running {
            let is_joined = look.stage == Stage::Locking
                && (look.db, look.set) == (db, set)
                && look.wishes.len() < WISHES_MOST;
            if !is_joined {
                continue;
            }
            let number = |(at, key): (usize, &Key)| {
                let is_it = |known: &Key| known.name == key.name;
                // Most have them in the same order.
                if look.keys.get(at).is_some_and(is_it) {
                    return Some(at);
                }
                look.keys.iter().position(is_it)
            };
            if let Some(order) = keys.iter().enumerate().map(number).collect() {
                wish.order = order;
                look.wishes.push(wish);
                look.open += 1;
                return Ok(());
            }
        }
        Err(wish)
    }
}
