//! Commands that take from the first of their keys that has something (BLPOP, BZMPOP …), whose keys
//! live on several instances:
//!
//! ```text
//! the first keys, of one instance: an attempt as any (commands/attempt.rs)  ─► something: that is the answer
//! nothing: a lock on all the keys, then
//!   to each instance: MEMORY USAGE of each of its keys            ─► which are there
//!   to that of the first: MULTI, the command for this key, EXEC   ─► that is the answer
//! nothing anywhere, anything unusual                              ─► the coordinator
//! ```
//! While the lock holds nobody can put anything in the keys that were empty: so there is a moment at
//! which they all were, and at which the element was taken. Whoever comes while a look for his keys
//! waits for its lock joins it: its wishes take from each other, which makes no empty key full.
//!
//! All looks share a lane to each instance, on which nobody else is: so a lock outlives what was sent,
//! whoever leaves meanwhile, and what many clients ask at the same time is one message.

use crate::base::count::count_down;
use crate::catalog::key_specs;
use crate::client::attempt::Attempt;
use crate::client::closing::Closing;
use crate::commands::attempt::found;
use crate::core::worker::Worker;
use crate::lane::instance;
use crate::lane::lane::{Asked, Duty, Expect, Question};
use crate::resp::encode::{EXEC, MULTI};
use crate::resp::reply::{Broken, STRAY, aggregate, error, is_error, is_null};
use crate::resp::request::{push_command, with_args};
use crate::routing::parts::Whole;
use crate::tables::lock::{Holder, Want};
use crate::work::commits::{LOCK_NANOSECONDS, PREPARE_NANOSECONDS, RUN_NANOSECONDS};
use crate::work::search::{KEYS_MOST, Key, LOOKS_MOST, Look, Stage, Wish};

impl Worker {
    /// The first keys had nothing: looks at all of them, once they are locked.
    pub(crate) fn look(&mut self, expect: Expect, attempt: Attempt) {
        let place = expect.client as usize;
        let (db, set) = (self.db(place), self.clients[place].lane_set);
        let keys = self.keys_of(db, &attempt);
        let mut instances: Vec<usize> = keys.iter().map(|key| key.instance).collect();
        instances.sort_unstable();
        instances.dedup();
        let is_late = |&instance: &usize| self.commits.is_late(instance, self.now);
        if keys.len() > KEYS_MOST || self.looks.len() >= LOOKS_MOST || instances.iter().any(is_late)
        {
            return self.leave_waiting(expect, &attempt.begun.raw);
        }
        let order = (0..keys.len()).collect();
        let wish = Wish { expect, attempt, order, tried: 0, has_ended: false };
        let Err(wish) = self.looks.join((db, set), &keys, wish) else { return };
        let mut locks = Vec::new();
        for key in &keys {
            self.shared.push_lock_of(db, &key.name, true, &mut locks);
        }
        let holder = Holder::Worker(self.index);
        let want = Want {
            keys: locks,
            everything: false,
            instances,
            holder,
            is_told: true,
            spares_doubts: false,
        };
        let (token, begun) = self.shared.ask_lock(want, Some(self.index));
        self.looks.running.insert(Look {
            token,
            stage: Stage::Locking,
            db,
            set,
            missing: keys.len(),
            keys,
            wishes: vec![wish],
            open: 1,
            is_refused: false,
            lost: Vec::new(),
            deadline: self.now + LOCK_NANOSECONDS,
        });
        if let Some(lock) = begun {
            self.lock(lock);
        }
    }

    fn keys_of(&self, db: u32, attempt: &Attempt) -> Vec<Key> {
        let (row, placement) =
            (self.shared.table.row(attempt.row as usize), &self.shared.placement);
        let keys = with_args(&attempt.begun.raw, |args| {
            let names = key_specs::all(&row.keys, args).map(|at| args.get(at).to_vec());
            let key = |name: Vec<u8>| {
                let instance = usize::from(placement.instance(db, &name));
                Key { name, instance, is_there: false }
            };
            names.map(key).collect()
        });
        keys.unwrap_or_default()
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
        if !is_free || self.ask_what_is_there(key).is_none() {
            self.leave_look(key);
        }
    }

    /// Asks for each of its keys; `None` if an instance cannot be asked.
    fn ask_what_is_there(&mut self, key: usize) -> Option<()> {
        for number in 0..self.looks.running[key].keys.len() {
            let place = self.lane_for_looks(key, number)?;
            let (lane, look) = (self.lanes.get_mut(place)?, &self.looks.running[key]);
            let begin = lane.out.len();
            // Not EXISTS: that counts as a hit or a miss, and events tell of it. A key that has just
            // expired may seem to be there; then nothing is taken from it. So spelt, SLOWLOG knows
            // that it is ours.
            let question = [&b"MEMORY"[..], b"Usage", &look.keys[number].name, b"SAMPLES", b"1"];
            push_command(&mut lane.out, question.into_iter());
            lane.ask((key, look.token), Asked::IsThere(number), lane.out.len() - begin);
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

    /// Takes for a wish from the next of its keys that is there; `None` if that cannot be done, or
    /// there is none.
    fn take_next(&mut self, key: usize, number: usize) -> Option<()> {
        let look = &self.looks.running[key];
        let wish = &look.wishes[number];
        let client = self.clients.get(wish.expect.client as usize)?;
        let is_there = client.generation == wish.expect.generation
            && client.closing != Closing::Now
            && !client.hung_up;
        if !is_there || !self.may_run_here(wish.expect.client as usize) {
            return None;
        }
        let order = wish.order.iter().enumerate().skip(wish.tried);
        let (at, &from) = order.into_iter().find(|&(_, &from)| look.keys[from].is_there)?;
        let place = self.lane_for_looks(key, from)?;
        let (lane, look) = (self.lanes.get_mut(place)?, &mut self.looks.running[key]);
        let wish = &mut look.wishes[number];
        let row = self.shared.table.row(wish.attempt.row as usize);
        let begin = lane.out.len();
        lane.out.extend_from_slice(MULTI);
        with_args(&wish.attempt.begun.raw, |args| {
            let mut owners = Vec::new();
            if let Some(whole) = Whole::new(row, args, look.db, &self.shared.placement, &mut owners)
            {
                whole.push_some(at, 1, &mut lane.out);
            }
        });
        lane.out.extend_from_slice(EXEC);
        lane.ask((key, look.token), Asked::Take(number), lane.out.len() - begin);
        wish.tried = at + 1;
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
        count_down(&mut question.to_come);
        let Question { look: key, token, asked, to_come, .. } = question;
        let is_good = match asked {
            _ if is_error(reply) => true,
            Asked::IsThere(_) => reply[0] == b':' || is_null(reply),
            Asked::Take(_) if to_come == 0 => aggregate(reply).is_some(),
            Asked::Take(_) => reply[0] == b'+',
        };
        let lane = self.lanes.get_mut(place).filter(|_| is_good).ok_or(STRAY)?;
        if to_come == 0 {
            lane.questions.pop_front();
        } else {
            lane.questions[0] = question;
        }
        let reply = self.lanes.received(place, start, length);
        let Some(look) = self.looks.get_mut(key, token) else { return Ok(()) };
        match asked {
            Asked::IsThere(number) => {
                look.keys[number].is_there = reply[0] == b':';
                look.is_refused |= is_error(reply);
                count_down(&mut look.missing);
                if look.missing == 0 {
                    self.begin_taking(key);
                }
            }
            Asked::Take(number) => {
                let wish = &mut look.wishes[number];
                wish.attempt.is_refused |= is_error(reply);
                let found = found(reply).filter(|_| !wish.attempt.is_refused);
                let found = found.map(<[u8]>::to_vec);
                if to_come == 0 {
                    self.took(key, number, found);
                }
            }
        }
        Ok(())
    }

    /// It is known what is there.
    fn begin_taking(&mut self, key: usize) {
        let look = &mut self.looks.running[key];
        if look.is_refused {
            return self.leave_look(key);
        }
        look.stage = Stage::Taking;
        for number in 0..look.wishes.len() {
            if self.take_next(key, number).is_none() {
                self.leave_wish(key, number);
            }
        }
        self.end_look_if_done(key);
    }

    /// What a wish has taken, if anything.
    fn took(&mut self, key: usize, number: usize, found: Option<Vec<u8>>) {
        let wish = &mut self.looks.running[key].wishes[number];
        if let Some(mut found) = found {
            let expect = wish.expect;
            self.counters.unwaited += 1;
            self.log_wish(key, number, found.len());
            self.answer_owed(expect, &mut found);
            self.end_wish(key, number);
        } else if wish.attempt.is_refused || self.take_next(key, number).is_none() {
            self.leave_wish(key, number);
        }
        self.end_look_if_done(key);
    }

    /// The instance of the key that had something has seen the command with this key alone.
    fn log_wish(&self, key: usize, number: usize, reply: usize) {
        let look = &self.looks.running[key];
        let wish = &look.wishes[number];
        let at = wish.tried - 1;
        let (db, instance) = (look.db, look.keys[wish.order[at]].instance);
        let Some(place) = self.place_of(wish.expect) else { return };
        self.log_seen(place, &wish.attempt.begun, reply, |worker, row, args| {
            let (mut owners, mut part) = (Vec::new(), Vec::new());
            if let Some(whole) = Whole::new(row, args, db, &worker.shared.placement, &mut owners) {
                whole.push_some(at, 1, &mut part);
            }
            Self::seen(instance, &part)
        });
    }

    /// A lane is out of service: what was asked there will not be answered.
    pub(crate) fn lost_for_looks(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let (instance, serial) = (lane.instance, lane.serial);
        let questions = std::mem::take(&mut lane.questions);
        let lost: Vec<(Question, bool)> =
            questions.into_iter().map(|question| (question, lane.was_asked(&question))).collect();
        for (Question { look: key, token, asked, .. }, was_asked) in lost {
            let Some(look) = self.looks.get_mut(key, token) else { continue };
            match asked {
                Asked::IsThere(_) => self.leave_look(key),
                Asked::Take(number) => {
                    if was_asked {
                        let wish = &look.wishes[number];
                        let expect = wish.expect;
                        look.lost.push((serial, wish.order[wish.tried - 1]));
                        self.answer_owed(expect, &mut error(&instance::lost(instance, true)));
                        self.end_wish(key, number);
                    } else {
                        self.leave_wish(key, number);
                    }
                    self.end_look_if_done(key);
                }
            }
        }
    }

    /// The coordinator runs a wish, and lets it wait if need be.
    fn leave_wish(&mut self, key: usize, number: usize) {
        let wish = &mut self.looks.running[key].wishes[number];
        let (expect, command) = (wish.expect, std::mem::take(&mut wish.attempt.begun.raw));
        self.leave_waiting(expect, &command);
        self.end_wish(key, number);
    }

    fn end_wish(&mut self, key: usize, number: usize) {
        let look = &mut self.looks.running[key];
        if !std::mem::replace(&mut look.wishes[number].has_ended, true) {
            count_down(&mut look.open);
        }
    }

    /// The coordinator runs all wishes: nothing has run that changes anything.
    fn leave_look(&mut self, key: usize) {
        for number in 0..self.looks.running[key].wishes.len() {
            self.leave_wish(key, number);
        }
        self.end_look_if_done(key);
    }

    fn end_look_if_done(&mut self, key: usize) {
        if self.looks.running[key].open > 0 {
            return;
        }
        let look = self.looks.running.remove(key);
        if look.lost.is_empty() {
            self.drop_lock(look.token, look.stage != Stage::Locking);
        } else {
            self.leave_what_was_lost(&look);
        }
    }

    /// Something may be taken yet, of keys of instances that do not answer: these keys stay locked until
    /// that is over. All others are free.
    fn leave_what_was_lost(&mut self, look: &Look) {
        let (mut keys, mut lanes) = (Vec::new(), Vec::new());
        for &(serial, number) in &look.lost {
            let key = &look.keys[number];
            self.shared.push_lock_of(look.db, &key.name, true, &mut keys);
            lanes.push((key.instance, serial));
        }
        self.shared.doubt_lock(look.token, keys, lanes[0].0);
        self.leave_lock_to_coordinator(look.token, lanes);
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
            let silent = self.lanes.where_asked(token);
            for &(_, instance) in &silent {
                self.note_late(instance);
            }
            match stage {
                Stage::Locking => self.note_unsettled(token),
                Stage::Asking => {}
                Stage::Taking => {
                    for (place, _) in silent {
                        self.break_lane(place);
                    }
                    continue;
                }
            }
            self.leave_look(key);
        }
    }

    /// A script runs too long: whoever waits for a lock would wait for it.
    pub(crate) fn leave_waiting_looks(&mut self) {
        for key in self.looks.find(|look| look.stage == Stage::Locking) {
            self.leave_look(key);
        }
    }
}
