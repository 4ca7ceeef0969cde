//! How commits end: done, given up, or handed over to the coordinator.

use crate::base::begun::Begun;
use crate::base::count::count_down;
use crate::client::queued::Queued;
use crate::core::worker::Worker;
use crate::lane::lane::Expect;
use crate::lane::{instance, lane};
use crate::resp::encode::words;
use crate::resp::reply::error;
use crate::threads::letters::{ToCoordinator, Unsettled};
use crate::work::commit::{Commit, Stage, Write};

/// Nanoseconds after which the records of finished commits are deleted, if no later commit has done
/// it.
const FORGET_NANOSECONDS: u64 = 100_000_000;

impl Worker {
    /// A lane is out of service: this may end a commit that has a part there.
    pub(crate) fn lost_for_commits(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let Some(key) = lane.commit.take() else { return };
        let (instance, was_sent) = (lane.instance, !lane.has_unsent());
        let Some(commit) = self.commits.running.get_mut(key) else { return };
        let part = &mut commit.parts[instance];
        part.is_lost = true;
        match commit.stage {
            Stage::Deciding if instance != commit.first => {} // handled once the decision is known
            Stage::Deciding if was_sent => self.doubt_commit(key),
            Stage::Preparing | Stage::Deciding => self.give_up_commit(key),
            Stage::Finishing if part.to_come > 0 => {
                part.has_failed = true;
                count_down(&mut commit.missing);
                if commit.missing == 0 {
                    self.conclude_commit(key);
                }
            }
            Stage::Locking | Stage::Finishing => {}
        }
    }

    /// Everything has run, or will run once an instance is back.
    pub(crate) fn conclude_commit(&mut self, key: usize) {
        let commit = self.end_commit(key);
        commit.answers(|write, reply, ends| match reply {
            Ok(reply) => {
                self.log_write(write, ends);
                self.answer_write(write, reply);
            }
            Err(instance) => {
                self.answer_write(write, &mut error(&instance::incomplete(instance)));
            }
        });
        if let Some(failed) = commit.parts.iter().position(|part| part.has_failed) {
            let keys = commit.locks(|part| part.has_failed); // the other keys have their values
            self.shared.doubt_lock(commit.token, keys, failed);
            return self.leave_to_coordinator(&commit, Some(commit.token));
        }
        self.release_lock(commit.token);
        self.shared.finished.count_records(commit.instances());
        self.shared.finished.add(commit.first, commit.name);
        self.forget_soon();
    }

    /// Nothing has run: the coordinator does each write by itself, and finds the error text if that
    /// is impossible.
    pub(crate) fn give_up_commit(&mut self, key: usize) {
        self.counters.commits_given_up += 1;
        let commit = self.end_commit(key);
        if commit.stage != Stage::Locking {
            self.leave_to_coordinator(&commit, None);
        }
        self.drop_lock(commit.token, commit.stage != Stage::Locking);
        // Commands that a client sent after its first write are taken anew, once that is answered.
        let mut behind: Vec<(Expect, usize, Vec<u8>)> = Vec::new();
        for Write { expect, rows, begun: Begun { raw, .. }, .. } in commit.writes {
            let client = (expect.client, expect.generation);
            if let Some((first, count, more)) = behind.last_mut()
                && (first.client, first.generation) == client
            {
                *count += 1;
                more.extend_from_slice(&raw);
                continue;
            }
            behind.push((expect, 0, Vec::new()));
            let Some(place) = self.give_back(expect) else { continue };
            let length = raw.len();
            let (args, queued) = match rows {
                None => (words(&raw), None),
                Some(rows) => {
                    let queued = Queued { commands: raw, count: rows.len() };
                    let session = &mut self.clients[place].session;
                    session.not_run += rows.len() as u64; // not yet, after all
                    session.queued_rows = rows;
                    (vec![b"EXEC".to_vec()], Some(queued))
                }
            };
            self.give_to_coordinator(place, length, args, queued);
        }
        for (expect, count, more) in behind {
            self.take_again(expect, count, more);
        }
    }

    /// The commit may have run or not.
    fn doubt_commit(&mut self, key: usize) {
        let commit = self.end_commit(key);
        let mut reply = error(&instance::lost(commit.first, true));
        commit.writes.iter().for_each(|write| self.answer_write(write, &mut reply));
        self.shared.doubt_lock(commit.token, commit.locks(|_| true), commit.first);
        self.leave_to_coordinator(&commit, Some(commit.token));
    }

    /// Has the records of finished commits deleted soon, if only by the coordinator.
    fn forget_soon(&mut self) {
        if self.commits.forget_at == 0 {
            self.commits.forget_at = self.now + FORGET_NANOSECONDS;
        }
    }

    /// Frees the lanes of a commit; the next one may start.
    fn end_commit(&mut self, key: usize) -> Commit {
        let mut commit = self.commits.running.remove(key);
        if commit.stage == Stage::Deciding && !commit.done.is_empty() {
            // It is unknown whether these records were deleted.
            commit.done.drain(..).for_each(|name| self.shared.finished.add(commit.first, name));
            self.forget_soon();
        }
        for (place, serial) in commit.parts.iter().filter_map(|part| part.lane) {
            let Some(lane) = self.lanes.get_mut(place).filter(|lane| lane.serial == serial) else {
                continue;
            };
            lane.commit = None;
            let is_clean = match commit.stage {
                Stage::Locking => true, // nothing was sent
                Stage::Preparing | Stage::Deciding => false,
                Stage::Finishing => commit.parts[lane.instance].to_come == 0,
            };
            let is_kept = lane.is_broken || (is_clean && self.lanes.spare(place));
            if !is_kept {
                self.give_up(place);
            }
        }
        let which = (commit.first, commit.resp3);
        if let Some(queue) = self.commits.queues.get_mut(&which) {
            queue.is_running = false;
            if !queue.forming.is_empty() {
                self.commits.due.push(which);
            }
        }
        commit
    }

    /// The coordinator resolves what the records tell, and then ends the lock, if it is still held.
    fn leave_to_coordinator(&mut self, commit: &Commit, token: Option<u64>) {
        let lanes = commit.instances().filter_map(|instance| {
            let part = &commit.parts[instance];
            let (_, serial) = part.lane.filter(|_| part.is_lost || part.to_come > 0)?;
            Some((instance, lane::name(self.index, serial)))
        });
        let unsettled = Unsettled {
            token,
            name: commit.name.clone(),
            first: commit.first,
            others: commit.others().collect(),
            lanes: lanes.collect(),
        };
        self.shared.coordinator.post(ToCoordinator::Unsettled(unsettled));
    }

    fn answer_write(&mut self, write: &Write, reply: &mut Vec<u8>) {
        if let Some(rows) = &write.rows {
            self.tally.executed(rows, reply);
        }
        self.answer_owed(write.expect, reply);
    }

    /// A script runs too long: gives up the commits that wait for a lock, as they would wait for
    /// it.
    pub(crate) fn give_up_waiting_commits(&mut self) {
        if self.shared.settings.busy().is_none() {
            return;
        }
        self.hand_over_waiting_pops();
        let running = self.commits.running.iter();
        let waiting = running.filter(|(_, commit)| commit.stage == Stage::Locking);
        for key in waiting.map(|(key, _)| key).collect::<Vec<_>>() {
            self.give_up_commit(key);
        }
    }
}
