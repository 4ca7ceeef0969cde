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
//! which they all were, and at which the element was taken. All looks share a lane to each instance, on
//! which nobody else is: so a lock outlives what was sent, whoever leaves meanwhile, and what many
//! clients ask at the same time is one message.

use crate::commit::{EXEC, MULTI};
use crate::commits::{LOCK_NANOSECONDS, PREPARE_NANOSECONDS, RUN_NANOSECONDS, STRAY};
use crate::instance;
use crate::lane::{Duty, Expect, Question};
use crate::lock_table::{Fingerprint, Holder, Want};
use crate::reply::{Broken, aggregate, error, is_error};
use crate::request::{push_command, with_args};
use crate::split::Whole;
use crate::trying::{Attempt, found};
use crate::worker::Worker;
use slab::Slab;

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
    /// Keys of which it is not known whether they are there.
    missing: usize,
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

/// What a reply means.
enum Heard {
    /// More is to come.
    Nothing,
    /// The instance does not do it.
    Refusal,
    /// It is known what is there, from this key on.
    Next(usize),
    /// The answer.
    Found(Vec<u8>),
}

impl Look {
    /// A reply to one of its questions, of which so many are still to come.
    fn hear(&mut self, number: Option<usize>, to_come: usize, reply: &[u8]) -> Heard {
        self.attempt.is_refused |= is_error(reply);
        match (number, self.stage) {
            (Some(number), _) => {
                self.keys[number].is_there = reply == b":1\r\n";
                self.missing -= 1;
                match self.missing {
                    0 if self.attempt.is_refused => Heard::Refusal,
                    0 => Heard::Next(0),
                    _ => Heard::Nothing,
                }
            }
            (None, Stage::Taking(number)) if to_come == 0 => match found(reply) {
                _ if self.attempt.is_refused => Heard::Refusal,
                Some(found) => Heard::Found(found.to_vec()),
                None => Heard::Next(number + 1), // it has just expired
            },
            _ => Heard::Nothing,
        }
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

    /// A look, unless it has ended.
    fn get_mut(&mut self, key: usize, token: u64) -> Option<&mut Look> {
        self.running.get_mut(key).filter(|look| look.token == token)
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
        let mut instances: Vec<usize> = keys.iter().map(|key| key.instance).collect();
        instances.sort_unstable();
        instances.dedup();
        if instances.iter().any(|&instance| self.commits.is_late(instance, self.now)) {
            return self.leave_waiting(expect, &attempt.command);
        }
        let want = Want {
            keys: locks,
            everything: false,
            instances,
            holder: Holder::Worker(self.index),
            is_told: true,
        };
        let (token, begun) = self.shared.ask_lock(want, Some(self.index));
        let (missing, deadline) = (keys.len(), self.now + LOCK_NANOSECONDS);
        let stage = Stage::Locking;
        let look = Look { expect, db, set, attempt, token, stage, keys, missing, deadline };
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

    /// Asks for each of its keys; `None` if an instance cannot be asked.
    fn ask_what_is_there(&mut self, key: usize) -> Option<()> {
        for number in 0..self.looks.running[key].keys.len() {
            let place = self.lane_for_looks(key, number)?;
            let (lane, look) = (self.lanes.get_mut(place)?, &self.looks.running[key]);
            let begin = lane.out.len();
            push_command(&mut lane.out, [&b"EXISTS"[..], &look.keys[number].name].into_iter());
            lane.ask((key, look.token), Some(number), 1, lane.out.len() - begin);
            self.counters.lane_commands += 1;
            self.mark_lane_dirty(place);
        }
        Some(())
    }

    /// The lane for questions about a key.
    fn lane_for_looks(&mut self, key: usize, number: usize) -> Option<usize> {
        let look = &self.looks.running[key];
        let (set, instance) = (look.set, look.keys[number].instance);
        let known = self.lanes.find_for_looks(set, instance);
        let place = known.or_else(|| self.free_lane(set, instance))?;
        self.lanes.set_duty(place, Duty::Looks);
        let lane = self.lanes.get_mut(place).filter(|lane| !lane.is_full())?;
        lane.last_used = self.now_seconds;
        Some(place)
    }

    /// Takes from the first key from this number on that is there; `None` if that cannot be asked for,
    /// or there is none.
    fn take_from(&mut self, key: usize, number: usize) -> Option<()> {
        let keys = self.looks.running[key].keys.iter().enumerate().skip(number);
        let (number, _) = keys.into_iter().find(|(_, key)| key.is_there)?;
        let place = self.lane_for_looks(key, number)?;
        let (lane, look) = (self.lanes.get_mut(place)?, &mut self.looks.running[key]);
        let row = self.shared.table.row(look.attempt.row as usize);
        let begin = lane.out.len();
        lane.out.extend_from_slice(MULTI);
        with_args(&look.attempt.command, |args| {
            let mut owners = Vec::new();
            if let Some(whole) = Whole::new(row, args, look.db, &self.shared, &mut owners) {
                whole.push_some(number, 1, &mut lane.out);
            }
        });
        lane.out.extend_from_slice(EXEC);
        lane.ask((key, look.token), None, 3, lane.out.len() - begin);
        look.stage = Stage::Taking(number);
        look.deadline = self.now + RUN_NANOSECONDS;
        self.counters.lane_commands += 1;
        self.mark_lane_dirty(place);
        Some(())
    }

    /// The next reply on a lane of looks.
    pub(crate) fn take_answer(
        &mut self,
        place: usize,
        start: u32,
        length: u32,
    ) -> Result<(), Broken> {
        let reply = self.lanes.received(place, start, length);
        let question = self.lanes.get(place).and_then(|lane| lane.questions.front().copied());
        let mut question = question.ok_or(STRAY)?;
        question.to_come -= 1;
        let is_good = match question {
            _ if is_error(reply) => true,
            Question { number: Some(_), .. } => matches!(reply, b":0\r\n" | b":1\r\n"),
            Question { to_come: 0, .. } => aggregate(reply).is_some(),
            _ => reply[0] == b'+',
        };
        if !is_good {
            return Err(STRAY);
        }
        let Question { look: key, token, number, to_come, .. } = question;
        let look = self.looks.get_mut(key, token);
        let outcome = look.map(|look| look.hear(number, to_come, reply));
        let lane = self.lanes.get_mut(place).ok_or(STRAY)?;
        if to_come == 0 {
            lane.questions.pop_front();
        } else {
            lane.questions[0] = question;
        }
        match outcome {
            None | Some(Heard::Nothing) => {}
            Some(Heard::Refusal) => self.leave_look(key),
            Some(Heard::Next(number)) => {
                if !self.is_as_it_was(key) || self.take_from(key, number).is_none() {
                    self.leave_look(key);
                }
            }
            Some(Heard::Found(found)) => {
                let expect = self.looks.running[key].expect;
                self.counters.unwaited += 1;
                self.answer_owed(expect, &found);
                self.end_look(key);
            }
        }
        Ok(())
    }

    /// A lane is out of service: the looks that have asked something there end.
    pub(crate) fn lost_for_looks(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let questions = std::mem::take(&mut lane.questions);
        let (instance, serial) = (lane.instance, lane.serial);
        let may_have_run =
            |question: &Question| question.number.is_none() && lane.was_asked(question);
        let lost: Vec<(Question, bool)> =
            questions.into_iter().map(|question| (question, may_have_run(&question))).collect();
        for (Question { look: key, token, .. }, may_have_run) in lost {
            let Some(look) = self.looks.get_mut(key, token) else { continue };
            if !may_have_run {
                self.leave_look(key);
                continue;
            }
            let expect = look.expect;
            self.looks.running.remove(key);
            self.answer_owed(expect, &error(&instance::lost(instance, true)));
            // It may run yet: the lock outlives that.
            self.leave_lock_to_coordinator(token, instance, serial);
        }
    }

    /// The coordinator runs it, and lets it wait if need be.
    fn leave_look(&mut self, key: usize) {
        let look = &mut self.looks.running[key];
        let (expect, command) = (look.expect, std::mem::take(&mut look.attempt.command));
        self.leave_waiting(expect, &command);
        self.end_look(key);
    }

    fn end_look(&mut self, key: usize) {
        let look = self.looks.running.remove(key);
        self.drop_lock(look.token, look.stage != Stage::Locking);
    }

    /// Looks after those that take too long.
    pub(crate) fn look_after_looks(&mut self) {
        if self.looks.deadline() > self.now {
            return;
        }
        for key in self.looks.find(|look| look.deadline <= self.now) {
            let Some(look) = self.looks.running.get_mut(key) else { continue };
            look.deadline = u64::MAX;
            let (stage, token) = (look.stage, look.token);
            let lanes = self.lanes.where_asked(token);
            for &(_, instance) in &lanes {
                self.note_late(instance);
            }
            match stage {
                Stage::Locking => self.note_unsettled(token),
                Stage::Asking => {}
                Stage::Taking(_) => {
                    for (place, _) in lanes {
                        self.break_lane(place);
                    }
                    continue;
                }
            }
            self.leave_look(key); // nothing has run that changes anything
        }
    }

    /// A script runs too long: whoever waits for a lock would wait for it.
    pub(crate) fn leave_waiting_looks(&mut self) {
        for key in self.looks.find(|look| look.stage == Stage::Locking) {
            self.leave_look(key);
        }
    }
}
