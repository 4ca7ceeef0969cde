//! Writes over several instances that a worker does by itself: MSET, DEL, transactions of ordinary
//! commands. Which writes join a commit is in `commands/commit_join.rs`, its messages to the
//! instances in `work/commit.rs`, its end in `commands/commit_ends.rs`; this file moves it from
//! step to step.
//!
//! ```text
//! route, multi ─► join ─► the open batch of the instance that decides
//! end of reading ─► start: asks for the lock ─► prepare ─► decide ─► finish ─► answers
//! anything unusual before the decision ─► the coordinator does each write by itself
//! anything unusual after it            ─► the coordinator resolves it, under the same lock
//! ```
//! One commit runs per deciding instance (and protocol); writes that come meanwhile form the next.
//! All writes in it have keys on that instance, so if that instance hangs, no other client is
//! affected. If another instance does not prepare in time, the commit is given up.

use crate::base::count::count_down;
use crate::core::worker::Worker;
use crate::lane::lane::{Duty, State};
use crate::resp::encode::EXEC;
use crate::resp::reply::{Broken, STRAY, is_error};
use crate::tables::lock::{Holder, Want};
use crate::threads::letters::ToCoordinator;
use crate::work::commit::{Commit, Stage, Write};
use crate::work::commits::{LOCK_NANOSECONDS, PREPARE_NANOSECONDS, RUN_NANOSECONDS};

impl Worker {
    /// Starts the commits that were formed, where none runs.
    pub(crate) fn start_commits(&mut self) {
        for which in std::mem::take(&mut self.commits.due) {
            let Some(queue) = self.commits.queues.get_mut(&which) else { continue };
            if queue.is_running {
                continue;
            }
            let Some(commit) = queue.forming.pop_front() else { continue };
            queue.is_running = true;
            self.start_commit(commit);
        }
    }

    fn start_commit(&mut self, mut commit: Commit) {
        self.counters.commits += 1;
        let want = Want {
            keys: commit.locks(|_| true),
            everything: false,
            instances: commit.instances().collect(),
            holder: Holder::Worker(self.index),
            is_told: true,
            spares_doubts: false,
        };
        let (token, begun) = self.shared.ask_lock(want, Some(self.index));
        commit.token = token;
        commit.deadline = self.now + LOCK_NANOSECONDS + commit.patience();
        let key = self.commits.running.insert(commit);
        if self.shared.settings.busy().is_some() {
            self.give_up_commit(key); // the coordinator finds the error text
        } else if let Some(lock) = begun {
            self.lock(lock);
        }
    }

    /// Continues the commit that waits for this lock, which now holds. False if no commit does.
    pub(crate) fn prepare_locked(&mut self, token: u64) -> bool {
        let mut running = self.commits.running.iter();
        let found = running.find(|(_, commit)| commit.token == token);
        let found = found.filter(|(_, commit)| commit.stage == Stage::Locking);
        let Some((key, _)) = found else { return false };
        self.prepare_commit(key);
        true
    }

    pub(crate) fn check_commit_deadlines(&mut self) {
        let now = self.now;
        if self.commits.deadline() > now {
            return;
        }
        if self.commits.forget_at > 0 && self.commits.forget_at <= now {
            self.commits.forget_at = 0;
            if !self.shared.finished.is_empty() {
                self.shared.coordinator.post(ToCoordinator::Finished);
            }
        }
        let running = self.commits.running.iter();
        let overdue: Vec<usize> =
            running.filter(|(_, commit)| commit.deadline <= now).map(|(key, _)| key).collect();
        for key in overdue {
            let commit = &mut self.commits.running[key];
            commit.deadline = u64::MAX;
            if commit.stage == Stage::Locking {
                let token = commit.token;
                self.note_unsettled(token);
                self.give_up_commit(key);
                continue;
            }
            let silent = commit.parts.iter().filter(|part| part.to_come > 0);
            let silent: Vec<(usize, u64)> = silent.filter_map(|part| part.lane).collect();
            for (place, serial) in silent {
                let Some(lane) = self.lanes.get(place).filter(|lane| lane.serial == serial) else {
                    continue;
                };
                let instance = lane.instance;
                self.note_late(instance);
                self.break_lane(place);
            }
        }
    }

    fn prepare_commit(&mut self, key: usize) {
        let (commit, blocking_keys) = (&self.commits.running[key], &self.shared.blocking_keys);
        // Rights may have changed: the coordinator checks them again.
        let owner = |write: &Write| self.clients.get(write.expect.client as usize);
        let has_restricted =
            commit.writes.iter().filter_map(owner).any(|client| client.is_restricted);
        // A client may have begun to wait for a key meanwhile: it is served before other commands.
        if has_restricted
            || (!blocking_keys.is_empty() && commit.has_key(|db, key| blocking_keys.has(db, key)))
        {
            return self.give_up_commit(key);
        }
        let state = State { db: self.shared.databases, resp3: commit.resp3, ..State::default() };
        let set = self.lanes.set(state, self.shared.instances);
        let instances: Vec<usize> = commit.instances().collect();
        for &instance in &instances {
            let Some(place) = self.free_lane(set, instance) else {
                return self.give_up_commit(key);
            };
            self.lanes.set_duty(place, Duty::Commit);
            let Some(lane) = self.lanes.get_mut(place) else { continue };
            lane.commit = Some(key);
            lane.last_used = self.now_seconds;
            self.commits.running[key].parts[instance].lane = Some((place, lane.serial));
        }
        let commit = &mut self.commits.running[key];
        commit.stage = Stage::Preparing;
        commit.missing = instances.len() - 1;
        commit.deadline = self.now + PREPARE_NANOSECONDS + commit.patience();
        let first = commit.first;
        for instance in instances.into_iter().filter(|&instance| instance != first) {
            self.tell_part(key, instance, |commit, hidden, out| {
                commit.push_prepare(instance, hidden, out);
            });
        }
    }

    /// Appends to the lane of a part; `write` is told which database is hidden.
    fn tell_part(
        &mut self,
        key: usize,
        instance: usize,
        write: impl FnOnce(&mut Commit, u32, &mut Vec<u8>),
    ) {
        let commit = &mut self.commits.running[key];
        let Some((place, _)) = commit.parts[instance].lane else { return };
        let Some(lane) = self.lanes.get_mut(place) else { return };
        write(commit, self.shared.databases, &mut lane.out);
        self.counters.lane_commands += 1;
        self.mark_lane_dirty(place);
    }

    fn decide_commit(&mut self, key: usize) {
        let commit = &mut self.commits.running[key];
        commit.stage = Stage::Deciding;
        commit.missing = 1;
        commit.deadline = self.now + RUN_NANOSECONDS + commit.patience();
        let first = commit.first;
        commit.done = self.shared.finished.take(first);
        self.tell_part(key, first, Commit::push_decide);
    }

    fn finish_commit(&mut self, key: usize) {
        let commit = &mut self.commits.running[key];
        commit.stage = Stage::Finishing;
        commit.deadline = self.now + RUN_NANOSECONDS + commit.patience();
        let others: Vec<usize> = commit.others().collect();
        let (lost, sound): (Vec<usize>, Vec<usize>) =
            others.into_iter().partition(|&instance| commit.parts[instance].is_lost);
        for instance in lost {
            commit.parts[instance].has_failed = true;
        }
        commit.missing = sound.len();
        if sound.is_empty() {
            return self.conclude_commit(key);
        }
        for instance in sound {
            self.tell_part(key, instance, |commit, _, out| {
                commit.parts[instance].to_come = 1;
                out.extend_from_slice(EXEC);
            });
        }
    }

    /// Takes one of the replies to a part of a commit.
    pub(crate) fn take_reply(
        &mut self,
        place: usize,
        start: u32,
        length: u32,
    ) -> Result<(), Broken> {
        let reply = self.lanes.received(place, start, length);
        let lane = self.lanes.get(place).ok_or(STRAY)?;
        let (key, instance) = (lane.commit.ok_or(STRAY)?, lane.instance);
        let commit = self.commits.running.get_mut(key).ok_or(STRAY)?;
        let part = &mut commit.parts[instance];
        part.to_come = part.to_come.checked_sub(1).ok_or(STRAY)?;
        let is_last = part.to_come == 0;
        if commit.stage == Stage::Preparing || !is_last {
            if is_error(reply) {
                self.tally.saw_no_memory |= reply.starts_with(b"-OOM ");
                commit.is_refused = true;
            } else if reply[0] != b'+' {
                return Err(STRAY);
            }
        } else {
            commit.is_refused = !commit.take_result(instance, reply);
        }
        if !is_last {
            return Ok(());
        }
        count_down(&mut commit.missing);
        match commit.stage {
            _ if commit.missing > 0 => {}
            Stage::Finishing => self.conclude_commit(key),
            _ if commit.is_refused => self.give_up_commit(key),
            Stage::Locking => return Err(STRAY),
            Stage::Preparing => self.decide_commit(key),
            Stage::Deciding => self.finish_commit(key),
        }
        Ok(())
    }
}
