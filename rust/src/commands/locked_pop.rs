//! Locked pops: commands that take from the first of their keys that is not empty (BLPOP, BZMPOP
//! …), if their keys live on several instances.
//!
//! ```text
//! the first keys, on one instance: an attempt (commands/attempt.rs)  ─► if not empty, the reply
//! nothing: a lock on all the keys, then
//!   to each instance: MEMORY USAGE of each of its keys                ─► which keys exist
//!   to that of the first one: MULTI, the command for this key, EXEC   ─► that is the reply
//! nothing anywhere, anything unusual                                  ─► the coordinator
//! ```
//! While the lock holds, no client can add to the keys that were empty. So there is a moment at
//! which all of them were empty, and at which the element was taken. A client that comes while a
//! locked pop on its keys waits for the lock joins it: the requests only take elements, so no empty
//! key gets one.
//!
//! All locked pops share one lane to each instance, which nothing else uses. So the lock outlives
//! what was sent, even if clients leave, and the questions of many clients at the same time are one
//! message.

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
use crate::routing::parts::SplitCommand;
use crate::tables::lock::{Holder, Want};
use crate::work::commits::{LOCK_NANOSECONDS, PREPARE_NANOSECONDS, RUN_NANOSECONDS};
use crate::work::locked_pops::{KEYS_MOST, Key, LockedPop, POPS_MOST, PopRequest, Stage};

impl Worker {
    /// The first keys were empty: tries all of them, once they are locked.
    pub(crate) fn begin_pop(&mut self, expect: Expect, attempt: Attempt) {
        let place = expect.client as usize;
        let (db, set) = (self.db(place), self.clients[place].lane_set);
        let keys = self.keys_of(db, &attempt);
        let mut instances: Vec<usize> = keys.iter().map(|key| key.instance).collect();
        instances.sort_unstable();
        instances.dedup();
        let is_late = |&instance: &usize| self.commits.is_late(instance, self.now);
        if keys.len() > KEYS_MOST
            || self.locked_pops.len() >= POPS_MOST
            || instances.iter().any(is_late)
        {
            return self.leave_waiting(expect, &attempt.begun.raw);
        }
        let order = (0..keys.len()).collect();
        let request = PopRequest { expect, attempt, order, tried: 0, has_ended: false };
        let Err(request) = self.locked_pops.join((db, set), &keys, request) else { return };
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
        self.locked_pops.running.insert(LockedPop {
            token,
            stage: Stage::Locking,
            db,
            set,
            missing: keys.len(),
            keys,
            requests: vec![request],
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

    /// A lock holds: if it belongs to a locked pop, that begins.
    pub(crate) fn begin_locked_pop(&mut self, token: u64) {
        let Some(&key) = self.locked_pops.find(|pop| pop.token == token).first() else { return };
        let pop = &mut self.locked_pops.running[key];
        pop.stage = Stage::Asking;
        pop.deadline = self.now + PREPARE_NANOSECONDS;
        // A client may have begun to wait for one of the keys meanwhile, and comes first.
        let is_waited_for = |key: &Key| self.shared.blocking_keys.has(pop.db, &key.name);
        let is_free = !pop.keys.iter().any(is_waited_for);
        if !is_free || self.ask_what_is_there(key).is_none() {
            self.hand_over_pop(key);
        }
    }

    /// Asks which of its keys exist; `None` if an instance cannot be asked.
    fn ask_what_is_there(&mut self, key: usize) -> Option<()> {
        for number in 0..self.locked_pops.running[key].keys.len() {
            let place = self.lane_for_pops(key, number)?;
            let (lane, pop) = (self.lanes.get_mut(place)?, &self.locked_pops.running[key]);
            let begin = lane.out.len();
            // Not EXISTS, because that counts as a hit or a miss, and causes events. A key that has
            // just expired may still seem to exist; then nothing is taken from it. By this spelling
            // SLOWLOG recognizes the proxy's own command.
            let question = [&b"MEMORY"[..], b"Usage", &pop.keys[number].name, b"SAMPLES", b"1"];
            push_command(&mut lane.out, question.into_iter());
            lane.ask((key, pop.token), Asked::IsThere(number), lane.out.len() - begin);
            self.counters.lane_commands += 1;
            self.mark_lane_dirty(place);
        }
        Some(())
    }

    /// The lane for questions about a key.
    fn lane_for_pops(&mut self, key: usize, number: usize) -> Option<usize> {
        let pop = &self.locked_pops.running[key];
        let (set, instance) = (pop.set, pop.keys[number].instance);
        let known = self.lanes.find_for_pops(set, instance);
        let place = known.or_else(|| self.free_lane(set, instance))?;
        self.lanes.set_duty(place, Duty::LockedPops);
        let lane = self.lanes.get_mut(place).filter(|lane| !lane.is_full())?;
        lane.last_used = self.now_seconds;
        Some(place)
    }

    /// Takes for a request from the next of its keys that exists; `None` if that is impossible, or
    /// there is none.
    fn take_next(&mut self, key: usize, number: usize) -> Option<()> {
        let pop = &self.locked_pops.running[key];
        let request = &pop.requests[number];
        let client = self.clients.get(request.expect.client as usize)?;
        let is_there = client.generation == request.expect.generation
            && client.closing != Closing::Now
            && !client.hung_up;
        if !is_there || !self.may_run_here(request.expect.client as usize) {
            return None;
        }
        let order = request.order.iter().enumerate().skip(request.tried);
        let (at, &from) = order.into_iter().find(|&(_, &from)| pop.keys[from].is_there)?;
        let place = self.lane_for_pops(key, from)?;
        let (lane, pop) = (self.lanes.get_mut(place)?, &mut self.locked_pops.running[key]);
        let request = &mut pop.requests[number];
        let row = self.shared.table.row(request.attempt.row as usize);
        let begin = lane.out.len();
        lane.out.extend_from_slice(MULTI);
        with_args(&request.attempt.begun.raw, |args| {
            let mut owners = Vec::new();
            if let Some(whole) =
                SplitCommand::new(row, args, pop.db, &self.shared.placement, &mut owners)
            {
                whole.push_some(at, 1, &mut lane.out);
            }
        });
        lane.out.extend_from_slice(EXEC);
        lane.ask((key, pop.token), Asked::Take(number), lane.out.len() - begin);
        request.tried = at + 1;
        pop.deadline = self.now + RUN_NANOSECONDS;
        self.counters.lane_commands += 1;
        self.mark_lane_dirty(place);
        Some(())
    }

    /// Takes the next reply on a lane of locked pops.
    pub(crate) fn take_pop_reply(
        &mut self,
        place: usize,
        start: u32,
        length: u32,
    ) -> Result<(), Broken> {
        let reply = self.lanes.received(place, start, length);
        let question = self.lanes.get(place).and_then(|lane| lane.questions.front().copied());
        let mut question = question.ok_or(STRAY)?;
        count_down(&mut question.to_come);
        let Question { pop: key, token, asked, to_come, .. } = question;
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
        let Some(pop) = self.locked_pops.get_mut(key, token) else { return Ok(()) };
        match asked {
            Asked::IsThere(number) => {
                pop.keys[number].is_there = reply[0] == b':';
                pop.is_refused |= is_error(reply);
                count_down(&mut pop.missing);
                if pop.missing == 0 {
                    self.begin_taking(key);
                }
            }
            Asked::Take(number) => {
                let request = &mut pop.requests[number];
                request.attempt.is_refused |= is_error(reply);
                let found = found(reply).filter(|_| !request.attempt.is_refused);
                let found = found.map(<[u8]>::to_vec);
                if to_come == 0 {
                    self.took(key, number, found);
                }
            }
        }
        Ok(())
    }

    /// It is known which keys exist: begins to take.
    fn begin_taking(&mut self, key: usize) {
        let pop = &mut self.locked_pops.running[key];
        if pop.is_refused {
            return self.hand_over_pop(key);
        }
        pop.stage = Stage::Taking;
        for number in 0..pop.requests.len() {
            if self.take_next(key, number).is_none() {
                self.hand_over_request(key, number);
            }
        }
        self.end_pop_if_done(key);
    }

    /// A request has taken something, or nothing.
    fn took(&mut self, key: usize, number: usize, found: Option<Vec<u8>>) {
        let request = &mut self.locked_pops.running[key].requests[number];
        if let Some(mut found) = found {
            let expect = request.expect;
            self.counters.unwaited += 1;
            self.log_request(key, number, found.len());
            self.answer_owed(expect, &mut found);
            self.end_request(key, number);
        } else if request.attempt.is_refused || self.take_next(key, number).is_none() {
            self.hand_over_request(key, number);
        }
        self.end_pop_if_done(key);
    }

    /// The instance of the key that was not empty got the command with this key alone.
    fn log_request(&self, key: usize, number: usize, reply: usize) {
        let pop = &self.locked_pops.running[key];
        let request = &pop.requests[number];
        let at = request.tried - 1;
        let (db, instance) = (pop.db, pop.keys[request.order[at]].instance);
        let Some(place) = self.place_of(request.expect) else { return };
        self.log_seen(place, &request.attempt.begun, reply, |worker, row, args| {
            let (mut owners, mut part) = (Vec::new(), Vec::new());
            if let Some(whole) =
                SplitCommand::new(row, args, db, &worker.shared.placement, &mut owners)
            {
                whole.push_some(at, 1, &mut part);
            }
            Self::seen(instance, &part)
        });
    }

    /// A lane is out of service: its questions will not be answered.
    pub(crate) fn lost_for_pops(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let (instance, serial) = (lane.instance, lane.serial);
        let questions = std::mem::take(&mut lane.questions);
        let lost: Vec<(Question, bool)> =
            questions.into_iter().map(|question| (question, lane.was_asked(&question))).collect();
        for (Question { pop: key, token, asked, .. }, was_asked) in lost {
            let Some(pop) = self.locked_pops.get_mut(key, token) else { continue };
            match asked {
                Asked::IsThere(_) => self.hand_over_pop(key),
                Asked::Take(number) => {
                    if was_asked {
                        let request = &pop.requests[number];
                        let expect = request.expect;
                        pop.lost.push((serial, request.order[request.tried - 1]));
                        self.answer_owed(expect, &mut error(&instance::lost(instance, true)));
                        self.end_request(key, number);
                    } else {
                        self.hand_over_request(key, number);
                    }
                    self.end_pop_if_done(key);
                }
            }
        }
    }

    /// The coordinator runs a request, and lets it wait if necessary.
    fn hand_over_request(&mut self, key: usize, number: usize) {
        let request = &mut self.locked_pops.running[key].requests[number];
        let (expect, command) = (request.expect, std::mem::take(&mut request.attempt.begun.raw));
        self.leave_waiting(expect, &command);
        self.end_request(key, number);
    }

    fn end_request(&mut self, key: usize, number: usize) {
        let pop = &mut self.locked_pops.running[key];
        if !std::mem::replace(&mut pop.requests[number].has_ended, true) {
            count_down(&mut pop.open);
        }
    }

    /// The coordinator runs all requests: nothing has changed any data yet.
    fn hand_over_pop(&mut self, key: usize) {
        for number in 0..self.locked_pops.running[key].requests.len() {
            self.hand_over_request(key, number);
        }
        self.end_pop_if_done(key);
    }

    fn end_pop_if_done(&mut self, key: usize) {
        if self.locked_pops.running[key].open > 0 {
            return;
        }
        let pop = self.locked_pops.running.remove(key);
        if pop.lost.is_empty() {
            self.drop_lock(pop.token, pop.stage != Stage::Locking);
        } else {
            self.hand_over_lost(&pop);
        }
    }

    /// Something may still be taken from keys on instances that do not answer: these keys stay
    /// locked until that is over. All others are free.
    fn hand_over_lost(&mut self, pop: &LockedPop) {
        let (mut keys, mut lanes) = (Vec::new(), Vec::new());
        for &(serial, number) in &pop.lost {
            let key = &pop.keys[number];
            self.shared.push_lock_of(pop.db, &key.name, true, &mut keys);
            lanes.push((key.instance, serial));
        }
        self.shared.doubt_lock(pop.token, keys, lanes[0].0);
        self.leave_lock_to_coordinator(pop.token, lanes);
    }

    /// Ends the locked pops that take too long.
    pub(crate) fn check_pop_deadlines(&mut self) {
        if self.locked_pops.deadline() > self.now {
            return;
        }
        for key in self.locked_pops.find(|pop| pop.deadline <= self.now) {
            let Some(pop) = self.locked_pops.running.get_mut(key) else { continue };
            pop.deadline = u64::MAX;
            let (stage, token) = (pop.stage, pop.token);
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
            self.hand_over_pop(key);
        }
    }

    /// A script runs too long: locked pops that wait for a lock would wait for it, so they are
    /// handed over.
    pub(crate) fn hand_over_waiting_pops(&mut self) {
        for key in self.locked_pops.find(|pop| pop.stage == Stage::Locking) {
            self.hand_over_pop(key);
        }
    }
}
