//! EVAL and EVALSHA of scripts that are known to use only the keys they declare: they run here,
//! fenced (`fences`). All others, and any special client or setting, are left to the coordinator
//! (`scripting/commands.py`), which also decides which scripts are known.

use crate::base::random::nonce;
use crate::base::step::Step;
use crate::catalog::key_specs;
use crate::catalog::table::Row;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::lane::lane::Expect;
use crate::lane::script_fences::{Means, Outcome};
use crate::resp::encode::words;
use crate::resp::reply::Broken;
use crate::resp::request::Args;
use crate::routing::acl_pattern;
use crate::routing::colocation::Group;
use crate::threads::letters::ToCoordinator;
use crate::threads::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A script with more keys goes to the coordinator: each key is a rule of its sandbox user.
const KEYS_MOST: usize = 64;

/// A longer command goes to the coordinator, too, because it is kept until it has run.
const LENGTH_MOST: usize = 64 * 1024;

/// Milliseconds in a second: scripts that run here are checked this often.
const SECOND: u64 = 1000;

/// A script that may run here.
struct Plan {
    script: Arc<[u8]>,
    instance: usize,
    /// Rules that allow its keys.
    rules: Vec<Vec<u8>>,
}

impl Worker {
    /// Runs a script, here or at the coordinator.
    pub(crate) fn route_script(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Step {
        let Some(plan) = self.plan_script(place, row, args, shared) else {
            return self.route_to_coordinator(place, args);
        };
        if self.must_drain(place) {
            return Step::Blocked;
        }
        if self.is_script_locked(place, row, args) {
            return self.wait_for_keys(place, row, args);
        }
        let set = self.clients[place].lane_set;
        let Some(lane) = self.script_lane(set, plan.instance) else {
            return self.instance_down(place, plan.instance);
        };
        let Ok(nonce) = nonce() else {
            return self.route_to_coordinator(place, args);
        };
        self.send_script(place, lane, plan, args, shared, nonce)
    }

    /// `None` unless everything about it is ordinary.
    fn plan_script(&self, place: usize, row: &Row, args: Args, shared: &Shared) -> Option<Plan> {
        let is_ordinary = self.may_run_here(place) && shared.scripts.limit.load(Relaxed) >= SECOND;
        if !is_ordinary || args.len() < 4 || args.raw.len() > LENGTH_MOST {
            return None;
        }
        let (script, is_local) = shared.scripts.find(args.get(1))?;
        let db = self.db(place);
        let mut plan = Plan { script, instance: usize::MAX, rules: Vec::new() };
        let mut are_open = true;
        for at in key_specs::all(&row.keys, args) {
            let key = args.get(at);
            let owner = usize::from(shared.placement.instance(db, key));
            if plan.instance != usize::MAX && plan.instance != owner {
                return None;
            }
            if shared.blocking_keys.has(db, key) || is_local && shared.blocking_keys.begins(db, key)
            {
                return None;
            }
            plan.instance = owner;
            let group = Group::of(key, &shared.placement);
            are_open &= group.as_ref().is_some_and(Group::is_open);
            let rule = group.map_or_else(|| acl_pattern::rule(key), |group| group.rule())?;
            if !plan.rules.contains(&rule) {
                plan.rules.push(rule);
            }
            if plan.rules.len() > KEYS_MOST {
                return None;
            }
        }
        (!plan.rules.is_empty() && (are_open || !is_local)).then_some(plan)
    }

    fn is_script_locked(&self, place: usize, row: &Row, args: Args) -> bool {
        if self.locks.is_free() {
            return false;
        }
        let db = self.db(place);
        key_specs::all(&row.keys, args).any(|at| {
            let key = args.get(at);
            let group = Group::of(key, &self.shared.placement);
            self.stops(db, key, true) || group.is_some_and(|one| self.stops(db, &one.lock(), true))
        })
    }

    /// The lane for scripts of a state; it is opened if there is none.
    fn script_lane(&mut self, set: u32, instance: usize) -> Option<usize> {
        if let Some(lane) = self.lanes.script_lane(set, instance) {
            return Some(lane);
        }
        let id = String::from_utf8_lossy(&nonce().ok()?[..16]).into_owned();
        let lane = self.free_lane(set, instance)?;
        self.lanes.give_to_scripts(lane, id);
        Some(lane)
    }

    fn send_script(
        &mut self,
        place: usize,
        lane: usize,
        plan: Plan,
        args: Args,
        shared: &Shared,
        nonce: [u8; 32],
    ) -> Step {
        let Some(known) = self.lanes.get_mut(lane) else {
            return self.instance_down(place, plan.instance);
        };
        let has_room = known.scripts.as_ref().is_some_and(|fences| fences.room() > 0);
        if !has_room || known.is_full() {
            return self.wait_for_lane(place, lane);
        }
        let rules = shared.scripts.rules.get().map_or(&[][..], Vec::as_slice);
        let means = Means { rules, password: &shared.instance_password, nonce };
        let (begin, now) = (known.out.len(), self.now_seconds);
        if let Some(fences) = known.scripts.as_mut() {
            fences.push(&mut known.out, plan.script, args, &plan.rules, &means, now);
        }
        let length = known.out.len() - begin;
        let client = &mut self.clients[place];
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        self.counters.lane_scripts += 1;
        // Its next commands may go to another lane, so they wait until this one has run.
        client.gate = Gate::Drain;
        self.expect(place, lane, sequence, length);
        Step::Done
    }

    /// Delivers the replies of a lane for scripts.
    pub(crate) fn cut_blocks(&mut self, place: usize) {
        if self.deliver_blocks(place).is_err() {
            self.break_lane(place);
            return;
        }
        if self.lanes.get(place).is_some_and(|lane| lane.can_write() && !lane.wants_write) {
            self.mark_lane_dirty(place);
        }
        if self.lanes.get(place).is_some_and(|lane| lane.readable) {
            self.ready_lanes.push(place);
        }
    }

    fn deliver_blocks(&mut self, place: usize) -> Result<(), Broken> {
        self.lanes.pass_opening(place)?;
        while let Some((start, block, expect)) = self.lanes.next_block(place, self.now_seconds)? {
            let position = |offset: usize| u32::try_from(start + offset).map_err(|_| TOO_LONG);
            match block.outcome {
                Outcome::Reply(reply) => {
                    let length = u32::try_from(reply.len()).map_err(|_| TOO_LONG)?;
                    self.deliver(place, position(reply.start)?, length, expect);
                }
                Outcome::NotRun(why) => {
                    let why = &self.lanes.received.after(place, start)[why];
                    self.tally.saw_no_memory |= why.starts_with(b"-OOM ");
                    self.script_not_run(expect, &block.command);
                }
                Outcome::Malformed(mut told) => self.answer_owed(expect, &mut told),
                Outcome::Strayed(log) => {
                    let log = self.lanes.received.after(place, start)[log].to_vec();
                    self.script_strayed(expect, &block.script, block.guard, log);
                }
            }
            if block.was_overdue
                && let Some(lane) = self.lanes.get(place)
            {
                let instance = lane.instance;
                self.shared.coordinator.post(ToCoordinator::Overdue { instance, is_so: false });
            }
            self.wake_lane_waiters(place);
        }
        Ok(())
    }

    /// Reports a script that uses other keys to the coordinator, which finds the error text.
    fn script_strayed(&mut self, expect: Expect, script: &[u8], guard: Vec<u8>, log: Vec<u8>) {
        let Some(place) = self.give_back(expect) else { return };
        let letter =
            ToCoordinator::Strayed { key: self.key(place), script: script.to_vec(), guard, log };
        self.shared.coordinator.post(letter);
    }

    /// The coordinator runs what has not run here, or finds the error text.
    fn script_not_run(&mut self, expect: Expect, command: &[u8]) {
        let Some(place) = self.give_back(expect) else { return };
        let args = words(command);
        self.give_to_coordinator(place, command.len(), args, None);
    }

    /// A script runs too long: the clients that wait for its lane try again.
    pub(crate) fn wake_those_behind_scripts(&mut self) {
        for place in self.lanes.of_scripts() {
            let Some(lane) = self.lanes.get_mut(place) else { continue };
            let waiting = std::mem::take(&mut lane.waiting);
            self.wake(waiting);
        }
    }

    /// A lane for scripts is out of service.
    pub(crate) fn forget_overdue(&mut self, place: usize) {
        if let Some(lane) = self.lanes.get_mut(place)
            && let Some(fences) = &mut lane.scripts
            && std::mem::take(&mut fences.is_overdue)
        {
            let instance = lane.instance;
            self.shared.coordinator.post(ToCoordinator::Overdue { instance, is_so: false });
        }
    }

    /// Once a second: finds the scripts that run too long.
    pub(crate) fn look_after_scripts(&mut self) {
        let limit = self.shared.scripts.limit.load(Relaxed).div_ceil(SECOND);
        let now = self.now_seconds;
        for place in self.lanes.of_scripts() {
            let Some(lane) = self.lanes.get_mut(place) else { continue };
            let Some(fences) = &mut lane.scripts else { continue };
            if limit > 0 && !fences.is_overdue && fences.age(now) >= limit {
                fences.is_overdue = true;
                let instance = lane.instance;
                self.shared.coordinator.post(ToCoordinator::Overdue { instance, is_so: true });
            }
        }
    }
}

const TOO_LONG: Broken = Broken("buffer over 4 GB");
