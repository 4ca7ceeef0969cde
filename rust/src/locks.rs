//! Key locks, as one worker sees them: which keys its clients must wait for.
//!
//! The coordinator decides who holds what, in order of arrival; every worker is told by mail:
//!
//! ```text
//! Mail::Lock   ─► clients that were waiting go first ─► the lock holds here
//!              ─► what was in flight to its instances is answered ─► ToCoordinator::Locked
//! Mail::Unlock ─► the lock is gone, its waiters are woken
//! ```
//! So a lock costs those who do not use it one look at an empty table, and nobody starves: whoever
//! waited for one lock passes before the next one holds.

use crate::client::Gate;
use crate::command::{Route, Row};
use crate::forward::Taken;
use crate::request::Args;
use crate::shared::ToCoordinator;
use crate::worker::Worker;
use std::collections::HashMap;
use std::sync::Arc;

/// What the coordinator tells those who wait for a lock while a script runs too long.
pub(crate) const BUSY: &str =
    "BUSY a script is running. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// One lock, as the coordinator asks for it.
#[derive(Debug)]
pub struct Lock {
    /// The coordinator's name for it.
    pub token: u64,
    /// Database, key, and whether nobody else may even read it.
    pub keys: Vec<(u32, Vec<u8>, bool)>,
    /// The whole keyspace, every database.
    pub everything: bool,
    /// Instances on which nothing may be in flight before it holds.
    pub instances: Vec<usize>,
}

/// A command in flight: this lane has answered it when it has answered so many.
#[derive(Debug)]
struct Mark {
    lane: usize,
    serial: u64,
    answered: u64,
}

/// The locks that hold for a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// Told, but not yet in force.
    coming: Vec<Arc<Lock>>,
    held: Vec<Arc<Lock>>,
    /// How often each key is locked: for everyone, against writers only.
    keys: HashMap<(u32, Vec<u8>), (u32, u32)>,
    everything: usize,
    /// Locks that hold here, but something is still in flight.
    settling: Vec<(u64, Vec<Mark>)>,
    /// Clients behind a lock: place and generation.
    waiting: Vec<(usize, u32)>,
}

impl Locks {
    /// True while nothing is locked.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.held.is_empty()
    }

    /// True while a lock waits for what is in flight.
    pub(crate) fn are_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// True while a key may not be written.
    pub(crate) fn are_on(&self, db: u32, key: &[u8]) -> bool {
        self.everything > 0 || self.is_key_locked(db, key, true)
    }

    fn is_key_locked(&self, db: u32, key: &[u8], writes: bool) -> bool {
        // The map wants an owned key; locks are rare, and so is this look-up.
        let held = self.keys.get(&(db, key.to_vec()));
        held.is_some_and(|&(exclusive, shared)| exclusive > 0 || (writes && shared > 0))
    }

    fn add(&mut self, lock: Arc<Lock>) {
        self.everything += usize::from(lock.everything);
        for (db, key, exclusive) in &lock.keys {
            let held = self.keys.entry((*db, key.clone())).or_default();
            *(if *exclusive { &mut held.0 } else { &mut held.1 }) += 1;
        }
        self.held.push(lock);
    }

    fn remove(&mut self, token: u64) {
        self.coming.retain(|lock| lock.token != token);
        self.settling.retain(|(settling, _)| *settling != token);
        let Some(at) = self.held.iter().position(|lock| lock.token == token) else {
            return;
        };
        let lock = self.held.swap_remove(at);
        self.everything -= usize::from(lock.everything);
        for (db, key, exclusive) in &lock.keys {
            let name = (*db, key.clone());
            if let Some(held) = self.keys.get_mut(&name) {
                *(if *exclusive { &mut held.0 } else { &mut held.1 }) -= 1;
                if *held == (0, 0) {
                    self.keys.remove(&name);
                }
            }
        }
    }
}

impl Worker {
    /// True while a key of this command is locked.
    #[inline]
    pub(crate) fn is_locked(&self, place: usize, row: &Row, args: Args) -> bool {
        !self.locks.is_free() && self.names_a_locked_key(place, row, args)
    }

    #[cold]
    fn names_a_locked_key(&self, place: usize, row: &Row, args: Args) -> bool {
        let db = self.db(place);
        match row.route {
            Route::Keys | Route::Split(_) => {
                self.locks.everything > 0
                    || crate::keys::all(&row.keys, args)
                        .any(|index| self.locks.is_key_locked(db, args.get(index), row.writes))
            }
            // It would see the half of what someone is writing.
            Route::All(_) => true,
            Route::Scan | Route::Any => self.locks.everything > 0,
            Route::Session(_)
            | Route::Pubsub(_)
            | Route::Script
            | Route::Coordinator
            | Route::Refuse => false,
        }
    }

    /// A locked key is waited for; but if a script runs for too long, that may be for ever.
    #[cold]
    pub(crate) fn wait_unless_busy(&mut self, place: usize) -> Taken {
        if self.shared.settings.busy().is_some() {
            self.refuse(place, BUSY);
            return Taken::Yes;
        }
        self.wait_for_unlock(place);
        Taken::NotYet
    }

    /// True while this key is locked.
    pub(crate) fn is_key_locked(&self, place: usize, key: &[u8], writes: bool) -> bool {
        let locks = &self.locks;
        !locks.is_free()
            && (locks.everything > 0 || locks.is_key_locked(self.db(place), key, writes))
    }

    /// The same for the keys of a transaction.
    pub(crate) fn transaction_must_wait(
        &mut self,
        place: usize,
        keys: &[(u32, Vec<u8>, bool)],
    ) -> bool {
        let locks = &self.locks;
        let is_locked = !locks.held.is_empty()
            && (locks.everything > 0
                || keys.iter().any(|(db, key, writes)| locks.is_key_locked(*db, key, *writes)));
        is_locked && self.wait_for_unlock(place)
    }

    pub(crate) fn wait_for_unlock(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        client.gate = Gate::Lock;
        self.locks.waiting.push((place, client.generation));
        true
    }

    /// A lock that will hold once this turn's clients were read.
    pub(crate) fn lock(&mut self, lock: Arc<Lock>) {
        self.locks.coming.push(lock);
    }

    /// Forgets a lock; whoever waited tries again this turn.
    pub(crate) fn unlock(&mut self, token: u64) {
        self.locks.remove(token);
        self.wake_those_behind_locks();
    }

    /// Whoever waits for a lock tries again this turn.
    pub(crate) fn wake_those_behind_locks(&mut self) {
        for (place, generation) in std::mem::take(&mut self.locks.waiting) {
            let client = self.clients.get(place);
            if client
                .is_some_and(|known| known.generation == generation && known.gate == Gate::Lock)
            {
                self.open_gate(place);
            }
        }
    }

    /// Puts the locks that came this turn in force, and notes what is in flight.
    pub(crate) fn begin_locks(&mut self) {
        for lock in std::mem::take(&mut self.locks.coming) {
            let lanes = lock.instances.iter().flat_map(|&index| self.lanes.of_instance(index));
            let marks = lanes.filter_map(|place| {
                let lane = self.lanes.get(place)?;
                let in_flight = lane.expects.len() as u64;
                (in_flight > 0).then_some(Mark {
                    lane: place,
                    serial: lane.serial,
                    answered: lane.answered + in_flight,
                })
            });
            let marks = marks.collect();
            self.locks.settling.push((lock.token, marks));
            self.locks.add(lock);
            self.read_paused_lanes();
        }
    }

    /// Tells the coordinator of locks before which everything has been answered.
    pub(crate) fn settle_locks(&mut self) {
        if self.locks.settling.is_empty() {
            return;
        }
        let lanes = &self.lanes;
        let is_open = |mark: &Mark| {
            lanes.get(mark.lane).is_some_and(|lane| {
                // What has begun to be answered has run; a client may take its time to read it.
                let has_run = lane.answered + u64::from(lane.cutter.is_within());
                lane.serial == mark.serial && !lane.is_broken && has_run < mark.answered
            })
        };
        let (index, coordinator) = (self.index, &self.shared.coordinator);
        self.locks.settling.retain_mut(|(token, marks)| {
            marks.retain(is_open);
            if marks.is_empty() {
                coordinator.post(ToCoordinator::Locked { token: *token, worker: index });
            }
            !marks.is_empty()
        });
    }
}
