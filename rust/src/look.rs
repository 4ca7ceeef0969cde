//! Commands that take from the first of their keys that has something (BLPOP, BZMPOP …), whose keys
//! live on several instances:
//!
//! ```text
//! the first keys, of one instance: an attempt as any (trying.rs)  ─► something: that is the answer
//! nothing: a lock on all the keys, then
//!   to each instance: EXISTS of each of its keys                  ─► which are there
//!   to that of the first: MULTI, the command for this key, EXEC   ─► that is the answer
//! nothing anywhere, anything unusual                              ─► the coordinator
//! ```
//! While the lock holds nobody can put anything in the keys that were empty: so there is a moment at
//! which they all were, and at which the element was taken. The lanes are its own, as those of commits
//! are: the lock outlives what was sent, whoever leaves meanwhile.

use crate::commit::{EXEC, MULTI};
use crate::commits::{LOCK_NANOSECONDS, PREPARE_NANOSECONDS, RUN_NANOSECONDS, STRAY};
use crate::instance;
use crate::lane::{Duty, Expect, Work};
use crate::lock_table::{Fingerprint, Holder, Want};
use crate::reply::{Broken, aggregate, error, is_error};
use crate::request::{push_command, with_args};
use crate::split::Whole;
use crate::trying::{Attempt, found};
use crate::worker::Worker;
use slab::Slab;
use std::collections::VecDeque;

/// One command that looks for the first of its keys that has something.
#[derive(Debug)]
pub(crate) struct Look {
    /// Whose, and which of its replies.
    expect: Expect,
    /// Its database, and the set of its lanes.
    db: u32,
    set: u32,
    attempt: Attempt,
    token: u64,
    stage: Stage,
    keys: Vec<Key>,
    /// One for each instance.
    parts: Vec<Part>,
    /// When it takes too long, in monotonic nanoseconds.
    deadline: u64,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for its lock.
    Locking,
    /// It asks which keys are there.
    Asking,
    /// It takes from the one with this number.
    Taking(usize),
}

#[derive(Debug)]
struct Key {
    name: Vec<u8>,
    instance: usize,
    is_there: bool,
}

/// What one instance is asked.
#[derive(Debug)]
struct Part {
    instance: usize,
    /// The lane, while it is in service, and its serial number.
    lane: Option<(usize, u64)>,
    /// Replies that have not come.
    to_come: usize,
    /// The numbers of the keys that it has not told of.
    asked: VecDeque<usize>,
}

impl Look {
    fn part(&mut self, place: usize) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.lane.is_some_and(|(lane, _)| lane == place))
    }

    /// The instances of its keys, each once.
    fn instances(&self) -> Vec<usize> {
        let mut instances: Vec<usize> = self.keys.iter().map(|key| key.instance).collect();
        instances.sort_unstable();
        instances.dedup();
        instances
    }
}

/// The looks of a worker.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    running: Slab<Look>,
}

impl Looks {
    /// True if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// When something must be done although nothing has happened.
    pub(crate) fn deadline(&self) -> u64 {
        self.running.iter().map(|(_, look)| look.deadline).min().unwrap_or(u64::MAX)
    }

    /// True if one looks at one of these keys.
    pub(crate) fn looks_at(&self, keys: &[Fingerprint]) -> bool {
        self.running.iter().any(|(_, look)| look.attempt.names_one_of(keys))
    }

    /// Replies that are still to come from an instance.
    pub(crate) fn to_come(&self, key: usize, instance: usize) -> usize {
        let parts = self.running.get(key).map_or(&[][..], |look| &look.parts);
        parts.iter().find(|part| part.instance == instance).map_or(0, |part| part.to_come)
    }

    fn find(&self, is_wanted: impl Fn(&Look) -> bool) -> Vec<usize> {
        let found = self.running.iter().filter(|(_, look)| is_wanted(look));
        found.map(|(key, _)| key).collect()
    }
}

impl Worker {
    /// The first keys had nothing: looks at all of them, once they are locked.
    pub(crate) fn look(&mut self, expect: Expect, attempt: Attempt) {
        let place = expect.client as usize;
        let (db, set) = (self.db(place), self.clients[place].lane_set);
        let (mut keys, mut locks) = (Vec::new(), Vec::new());
        with_args(&attempt.command, |args| {
            for at in crate::keys::all(&self.shared.table.row(attempt.row as usize).keys, args) {
                let name = args.get(at);
                let instance = usize::from(self.shared.placement.instance(db, name));
                self.shared.push_lock_of(db, name, true, &mut locks);
                keys.push(Key { name: name.to_vec(), instance, is_there: false });
            }
        });
        let mut look = Look {
            expect,
            db,
            set,
            attempt,
            token: 0,
            stage: Stage::Locking,
            keys,
            parts: Vec::new(),
            deadline: self.now + LOCK_NANOSECONDS,
        };
        let instances = look.instances();
        if instances.iter().any(|&instance| self.commits.is_late(instance, self.now)) {
            return self.leave_waiting(expect, &look.attempt.command);
        }
        let want = Want {
            keys: locks,
            everything: false,
            instances,
            holder: Holder::Worker(self.index),
            is_told: true,
        };
        let (token, begun) = self.shared.ask_lock(want, Some(self.index));
        look.token = token;
        self.looks.running.insert(look);
        if let Some(lock) = begun {
            self.lock(lock);
        }
    }

    /// A lock holds: if it is one of a look, that begins.
    pub(crate) fn begin_look(&mut self, token: u64) {
        let Some(&key) = self.looks.find(|look| look.token == token).first() else { return };
        let look = &mut self.looks.running[key];
        look.stage = Stage::Asking;
        look.deadline = self.now + PREPARE_NANOSECONDS;
        // Somebody may have come to wait for one of the keys meanwhile, and comes first.
        let is_waited_for = |key: &Key| self.shared.waited.has(look.db, &key.name);
        let is_free = !look.keys.iter().any(is_waited_for);
        if !is_free || !self.is_as_it_was(key) || self.ask_what_is_there(key).is_none() {
            self.leave_look(key);
        }
    }

    /// True if its client is still there, and nothing about it and the moment is unusual.
    fn is_as_it_was(&self, key: usize) -> bool {
        let expect = &self.looks.running[key].expect;
        let client = self.clients.get(expect.client as usize);
        client.is_some_and(|known| known.generation == expect.generation && !known.hung_up)
            && self.may_run_here(expect.client as usize)
    }

    /// Asks each instance of each of its keys; `None` if one cannot be asked.
    fn ask_what_is_there(&mut self, key: usize) -> Option<()> {
        for instance in self.looks.running[key].instances() {
            let place = self.free_lane(self.looks.running[key].set, instance)?;
            self.lanes.set_duty(place, Duty::Work);
            let (lane, look) = (self.lanes.get_mut(place)?, &mut self.looks.running[key]);
            lane.work = Some(Work::Look(key));
            lane.last_used = self.now_seconds;
            let mut asked = VecDeque::new();
            let keys = look.keys.iter().enumerate();
            for (number, key) in keys.filter(|(_, key)| key.instance == instance) {
                push_command(&mut lane.out, [&b"EXISTS"[..], &key.name].into_iter());
                asked.push_back(number);
            }
            self.counters.lane_commands += asked.len() as u64;
            let lane = Some((place, lane.serial));
            look.parts.push(Part { instance, lane, to_come: asked.len(), asked });
            self.mark_lane_dirty(place);
        }
        Some(())
    }

    /// Takes from the first key from this number on that is there.
    fn take_from(&mut self, key: usize, number: usize) {
        let look = &mut self.looks.running[key];
        let there = (number..look.keys.len()).find(|&number| look.keys[number].is_there);
        let part = there.and_then(|number| {
            let instance = look.keys[number].instance;
            look.parts.iter_mut().find(|part| part.instance == instance)
        });
        let Some((number, part)) = there.zip(part) else { return self.leave_look(key) };
        let lane = part.lane.and_then(|(place, _)| Some((place, self.lanes.get_mut(place)?)));
        let Some((place, lane)) = lane else { return self.leave_look(key) };
        let row = self.shared.table.row(look.attempt.row as usize);
        lane.out.extend_from_slice(MULTI);
        with_args(&look.attempt.command, |args| {
            let mut owners = Vec::new();
            let whole = Whole::new(row, args, look.db, &self.shared, &mut owners);
            if let Some(whole) = whole {
                whole.push_some(number, 1, &mut lane.out);
            }
        });
        lane.out.extend_from_slice(EXEC);
        part.to_come = 3;
        look.stage = Stage::Taking(number);
        look.deadline = self.now + RUN_NANOSECONDS;
        self.counters.lane_commands += 1;
        self.mark_lane_dirty(place);
    }

    /// One of the replies to a look.
    pub(crate) fn take_answer(
        &mut self,
        key: usize,
        place: usize,
        start: u32,
        length: u32,
    ) -> Result<(), Broken> {
        let reply = self.lanes.received(place, start, length);
        let look = self.looks.running.get_mut(key).ok_or(STRAY)?;
        let stage = look.stage;
        let part = look.part(place).ok_or(STRAY)?;
        part.to_come = part.to_come.checked_sub(1).ok_or(STRAY)?;
        let (to_come, asked) = (part.to_come, part.asked.pop_front());
        look.attempt.is_refused |= is_error(reply);
        let Stage::Taking(number) = stage else {
            match (asked, reply) {
                (Some(number), b":1\r\n") => look.keys[number].is_there = true,
                (Some(_), b":0\r\n") => {}
                _ if is_error(reply) => {}
                _ => return Err(STRAY),
            }
            if look.parts.iter().all(|part| part.to_come == 0) {
                self.take_from_first(key);
            }
            return Ok(());
        };
        if to_come > 0 {
            return if is_error(reply) || reply[0] == b'+' { Ok(()) } else { Err(STRAY) };
        }
        if look.attempt.is_refused {
            self.leave_look(key);
        } else if let Some(found) = found(reply) {
            let (expect, found) = (look.expect, found.to_vec());
            self.counters.unwaited += 1;
            self.answer_owed(expect, &found);
            self.end_look(key);
        } else if aggregate(reply).is_some() {
            self.take_from(key, number + 1); // it has just expired
        } else {
            return Err(STRAY);
        }
        Ok(())
    }

    fn take_from_first(&mut self, key: usize) {
        if self.looks.running[key].attempt.is_refused || !self.is_as_it_was(key) {
            self.leave_look(key);
        } else {
            self.take_from(key, 0);
        }
    }

    /// A lane of a look is out of service.
    pub(crate) fn lost_for_look(&mut self, place: usize, key: usize) {
        let Some(lane) = self.lanes.get(place) else { return };
        let (serial, was_sent) = (lane.serial, !lane.has_unsent());
        let Some(look) = self.looks.running.get_mut(key) else { return };
        let (stage, expect, token) = (look.stage, look.expect, look.token);
        let Some(part) = look.part(place) else { return };
        part.lane = None;
        let instance = part.instance;
        match stage {
            Stage::Taking(number) if look.keys[number].instance != instance => return,
            Stage::Taking(_) if was_sent => {}
            _ => return self.leave_look(key), // nothing has run that changes anything
        }
        self.free_lanes_of_look(key);
        self.looks.running.remove(key);
        self.answer_owed(expect, &error(&instance::lost(instance, true)));
        // It may run yet: the lock outlives that.
        self.leave_lock_to_coordinator(token, instance, serial);
    }

    /// The coordinator runs it, and lets it wait if need be.
    fn leave_look(&mut self, key: usize) {
        let look = &mut self.looks.running[key];
        let (expect, command) = (look.expect, std::mem::take(&mut look.attempt.command));
        self.leave_waiting(expect, &command);
        self.end_look(key);
    }

    fn end_look(&mut self, key: usize) {
        self.free_lanes_of_look(key);
        let look = self.looks.running.remove(key);
        self.drop_lock(look.token, look.stage != Stage::Locking);
    }

    fn free_lanes_of_look(&mut self, key: usize) {
        for part in std::mem::take(&mut self.looks.running[key].parts) {
            let Some((place, serial)) = part.lane else { continue };
            let Some(lane) = self.lanes.get_mut(place).filter(|lane| lane.serial == serial) else {
                continue;
            };
            lane.work = None;
            let is_kept = lane.is_broken || (part.to_come == 0 && self.lanes.spare(place));
            if !is_kept {
                self.give_up(place);
            }
        }
    }

    /// Looks after those that take too long.
    pub(crate) fn look_after_looks(&mut self) {
        if self.looks.deadline() > self.now {
            return;
        }
        for key in self.looks.find(|look| look.deadline <= self.now) {
            let look = &mut self.looks.running[key];
            look.deadline = u64::MAX;
            let token = look.token;
            let silent = look.parts.iter().find(|part| part.to_come > 0);
            let silent = silent.and_then(|part| part.lane.zip(Some(part.instance)));
            if let Some(((place, _), instance)) = silent {
                self.note_late(instance);
                self.break_lane(place);
            } else {
                self.note_unsettled(token);
                self.leave_look(key);
            }
        }
    }

    /// A script runs too long: whoever waits for a lock would wait for it.
    pub(crate) fn leave_waiting_looks(&mut self) {
        for key in self.looks.find(|look| look.stage == Stage::Locking) {
            self.leave_look(key);
        }
    }
}
