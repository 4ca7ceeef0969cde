//! Who joins a commit: MSET, DEL and the like, and transactions, of keys on several instances.

use crate::client::{Gate, Owed};
use crate::command::Row;
use crate::commit::Commit;
use crate::forward::Taken;
use crate::instance::InstanceState;
use crate::lane::{Expect, State};
use crate::merge::Merge;
use crate::multi::Multi;
use crate::request::{Args, with_args};
use crate::route::canonical;
use crate::shared::Shared;
use crate::split::Whole;
use crate::worker::Worker;
use std::sync::Arc;

/// Bytes; a longer write is left to the coordinator: it is kept, several times, until it is done.
const LENGTH_MOST: usize = 128 * 1024 * 1024;

impl Worker {
    /// A command whose keys live on several instances, to be done in parts: here if that is all there
    /// is to it, else at the coordinator.
    pub(crate) fn route_in_parts(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Taken {
        let mut owners = std::mem::take(&mut self.owners);
        let whole = Whole::new(row, args, self.db(place), shared, &mut owners);
        let taken = match row.parts.zip(whole) {
            Some((merge, whole)) if self.may_commit(place, args.raw.len(), whole.owners) => {
                self.join(place, row, merge, whole)
            }
            _ => self.route_to_coordinator(place, args),
        };
        self.owners = owners;
        taken
    }

    fn join(&mut self, place: usize, row: &Row, merge: Merge, whole: Whole) -> Taken {
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        let (db, args) = (self.db(place), whole.args);
        let Some(first) = whole.owners.iter().copied().min() else {
            return self.route_to_coordinator(place, args);
        };
        let expect = self.owe_commit(place);
        let shared = Arc::clone(&self.shared);
        let commit = self.forming(usize::from(first), false);
        commit.begin(expect);
        for (at, owner) in whole.keys() {
            commit.add_key(&shared, owner, (db, args.get(at), row.writes));
        }
        commit.add_whole(db, merge, whole);
        commit.end(canonical(args), None);
        Taken::Yes
    }

    /// EXEC of ordinary commands whose keys live on several instances; `Err` gives it back, for the
    /// coordinator. Everything before it was answered.
    pub(crate) fn join_with(&mut self, place: usize, multi: Box<Multi>) -> Result<(), Box<Multi>> {
        let shared = Arc::clone(&self.shared);
        let State { db, resp3, .. } = self.lanes.state(self.clients[place].lane_set);
        let of_key = |(db, key, _): &(u32, Vec<u8>, bool)| shared.placement.instance(*db, key);
        let owners: Vec<u16> = multi.keys.iter().map(of_key).collect();
        let first = owners.iter().copied().min();
        let Some(first) = first.filter(|_| self.may_commit(place, multi.size(), &owners)) else {
            return Err(multi);
        };
        let expect = self.owe_commit(place);
        let commit = self.forming(usize::from(first), resp3);
        commit.begin(expect);
        for ((_, key, writes), &owner) in multi.keys.iter().zip(&owners) {
            commit.add_key(&shared, usize::from(owner), (db, key, *writes));
        }
        let mut begin = 0;
        for (place, &end) in multi.ends.iter().enumerate() {
            let command = &multi.commands[begin..end];
            begin = end;
            match multi.homes[place] {
                Some(home) => commit.add_command(usize::from(home), db, command),
                None => add_in_parts(commit, &shared, db, multi.rows[place], command),
            }
        }
        commit.end(multi.commands, Some(multi.rows));
        Ok(())
    }

    /// True if everything about a write is ordinary.
    fn may_commit(&self, place: usize, length: usize, owners: &[u16]) -> bool {
        let is_prompt = |&owner: &u16| {
            let instance = usize::from(owner);
            matches!(self.instances.get(instance), Some(InstanceState::Ready(_)))
                && !self.commits.is_late(instance, self.now)
        };
        length <= LENGTH_MOST
            && self.may_run_here(place)
            && !self.shared.tells_events()
            && owners.iter().all(is_prompt)
    }

    /// The client is owed a reply by a commit; what it sends next may go to other lanes: not before.
    fn owe_commit(&mut self, place: usize) -> Expect {
        let client = &mut self.clients[place];
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        client.gate = Gate::Drain;
        self.counters.committed_writes += 1;
        let generation = client.generation;
        Expect {
            client: u32::try_from(place).expect("descriptors fit"),
            generation,
            sequence,
            end: 0,
        }
    }

    /// The commit that forms for an instance that decides.
    fn forming(&mut self, first: usize, resp3: bool) -> &mut Commit {
        let commits = &mut self.commits;
        let queue = commits.queues.entry((first, resp3)).or_default();
        if !queue.is_running && queue.forming.is_empty() {
            commits.due.push((first, resp3));
        }
        if queue.forming.back().is_none_or(Commit::is_full) {
            commits.last_name += 1;
            let number = format!("-{}-{}", self.index, commits.last_name);
            let name = [&self.shared.finished.prefix, number.as_bytes()].concat();
            queue.forming.push_back(Commit::new(name, first, resp3, self.shared.instances));
        }
        queue.forming.back_mut().expect("just made sure")
    }
}

/// A command of a transaction whose keys live on several instances; it was looked at when it was
/// queued.
fn add_in_parts(commit: &mut Commit, shared: &Shared, db: u32, row: u32, command: &[u8]) {
    let row = shared.table.row(row as usize);
    with_args(command, |args| {
        let mut owners = Vec::new();
        let whole = Whole::new(row, args, db, shared, &mut owners);
        if let Some((merge, whole)) = row.parts.zip(whole) {
            commit.add_whole(db, merge, whole);
        }
    });
}
