//! Which commands join a commit: MSET, DEL and the like, and transactions, on several instances.

use crate::base::step::Step;
use crate::catalog::merge_kind::Merge;
use crate::catalog::table::{Found, Route, Row};
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::client::transaction::Multi;
use crate::core::worker::{CLIENT_READ, Worker};
use crate::lane::instance::InstanceState;
use crate::lane::lane::{Expect, State};
use crate::net::socket::Io;
use crate::resp::encode::canonical;
use crate::resp::request::{Args, Cut, Limits, Request, with_args};
use crate::routing::parts::SplitCommand;
use crate::threads::shared::Shared;
use crate::work::commit::{BYTES_MOST, Commit};
use std::sync::Arc;

/// Bytes. A longer write goes to the coordinator, because it is kept, several times, until it is
/// done.
const LENGTH_MOST: usize = 128 * 1024 * 1024;

/// Bytes of a write from which on the length of its arguments is checked, and bytes of a long
/// argument. Copying long arguments several times would delay all clients of this worker; the
/// coordinator does not copy them.
const LOOKED_AT: usize = 1024 * 1024;

const LONG_WORD: usize = 16 * 1024;

/// A write's record, which is one argument, may be this many times as long as the write (a key is
/// in it twice, and each command of a transaction has its SELECT), in addition to the records of
/// the other writes that have joined.
const RECORD_TIMES: usize = 4;

impl Worker {
    /// Does a command on keys of several instances in parts: here if nothing else is needed,
    /// otherwise at the coordinator.
    pub(crate) fn route_in_parts(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Step {
        let mut owners = std::mem::take(&mut self.owners);
        let whole = SplitCommand::new(row, args, self.db(place), &shared.placement, &mut owners);
        let taken = match row.parts.zip(whole) {
            Some((merge, whole))
                if self.may_commit(place, args.raw.len(), args.len(), whole.owners) =>
            {
                self.join(place, row, merge, whole)
            }
            _ => self.route_to_coordinator(place, args),
        };
        self.owners = owners;
        taken
    }

    fn join(&mut self, place: usize, row: &Row, merge: Merge, whole: SplitCommand) -> Step {
        let (db, args) = (self.db(place), whole.args);
        let Some(first) = whole.owners.iter().copied().min() else {
            return self.route_to_coordinator(place, args);
        };
        let goes_on = self.goes_on(place);
        if goes_on.is_none() && self.must_drain(place) {
            return Step::Blocked;
        }
        let first = goes_on.unwrap_or(usize::from(first));
        let (expect, now) = (self.owe_commit(place), self.now);
        let shared = Arc::clone(&self.shared);
        let commit = self.forming(first, false);
        commit.begin(expect, now);
        for (at, owner) in whole.keys() {
            commit.add_key(&shared, owner, (db, args.get(at), row.writes));
        }
        commit.add_whole(db, merge, whole);
        commit.end(canonical(args), None);
        Step::Done
    }

    /// Takes the writes that a client has sent directly after one that joined: as many as may join
    /// the same commit, where they run in the order sent. Returns how many bytes and how many
    /// writes they were.
    pub(crate) fn join_more(
        &mut self,
        place: usize,
        bytes: &[u8],
        request: &mut Request,
        shared: &Shared,
    ) -> (usize, u64) {
        let (mut used, mut taken) = (0, 0);
        let limits = Limits { is_authenticated: true, argument: shared.settings.argument_limit() };
        while let Ok(Cut::Complete(length)) =
            request.cut_from(&bytes[used..], limits, self.shared.dialect)
        {
            let args = request.args(&bytes[used..used + length]);
            if args.is_empty() || !self.joins_too(place, args, shared) {
                break;
            }
            request.reset();
            (used, taken) = (used + length, taken + 1);
        }
        request.reset();
        (used, taken)
    }

    /// Reads more from the client as long as its commands join.
    pub(crate) fn read_more_to_join(&mut self, place: usize) {
        let shared = Arc::clone(&self.shared);
        let mut request = std::mem::take(&mut self.request);
        while self.clients[place].gate == Gate::Drain
            && self.clients[place].readable
            && self.clients[place].request.is_none()
            && self.goes_on(place).is_some()
        {
            let mut bytes = std::mem::take(&mut self.clients[place].rx);
            let io = bytes.read(&self.clients[place].fd, CLIENT_READ);
            self.note_read(place, io, CLIENT_READ);
            let (used, taken) = self.join_more(place, bytes.kept(), &mut request, &shared);
            bytes.take(used);
            self.counters.commands += taken;
            self.clients[place].session.commands += taken;
            self.clients[place].rx = bytes;
            if io == Io::Gone {
                // Commands that it sent before are still run; then its end is read again.
                self.clients[place].readable = true;
                break;
            }
            if used == 0 {
                break;
            }
        }
        self.request = request;
    }

    /// Lets a command join too, if nothing at all forbids it.
    fn joins_too(&mut self, place: usize, args: Args, shared: &Shared) -> bool {
        let sub = (args.len() > 1).then(|| args.get(1));
        let Found::Row(found) = shared.table.find_again(&mut self.recent, args.get(0), sub) else {
            return false;
        };
        let (row, client) = (shared.table.row(found), &self.clients[place]);
        let Some(merge) = row.parts.filter(|_| row.route == Route::Keys && row.takes(args.len()))
        else {
            return false;
        };
        let is_plain = client.gate == Gate::Drain
            && client.closing == Closing::No
            && client.reply_mode.is_none()
            && !client.is_behind(client.rx.len(), &shared.settings)
            && row.special_words.is_empty()
            && !self.attempts.has_groups
            && !self.concerns_a_wait(place, row, args)
            && !self.is_locked(place, row, args);
        if !is_plain {
            return false;
        }
        let mut owners = std::mem::take(&mut self.owners);
        let whole = SplitCommand::new(row, args, self.db(place), &shared.placement, &mut owners);
        let joins = whole.filter(|whole| {
            let first = whole.owners.iter().copied().min().unwrap_or(u16::MAX);
            whole.owners.iter().any(|&owner| owner != first)
                && self.goes_on(place).is_some()
                && self.may_commit(place, args.raw.len(), args.len(), whole.owners)
        });
        if let Some(whole) = joins {
            self.clients[place].last_command = found;
            self.counted(place, (found, row), |worker| worker.join(place, row, merge, whole));
        }
        let has_joined = joins.is_some();
        self.owners = owners;
        has_joined
    }

    /// The deciding instance of the open batch that this client was the last to join, so that its
    /// next commands may join it, too. They would wait for it anyway, so they need not have keys
    /// there.
    pub(crate) fn goes_on(&self, place: usize) -> Option<usize> {
        let generation = self.clients[place].generation;
        let is_last = |commit: &Commit| {
            commit.writes.last().is_some_and(|write| {
                write.expect.client as usize == place && write.expect.generation == generation
            })
        };
        let mut forming = self.commits.queues.iter().filter(|((_, resp3), _)| !resp3);
        let found = forming.find(|(_, queue)| {
            queue.forming.back().is_some_and(|commit| !commit.is_full() && is_last(commit))
        });
        found.map(|(&(first, _), _)| first)
    }

    /// EXEC of ordinary commands whose keys live on several instances. `Err` returns the
    /// transaction, for the coordinator. All earlier commands were answered.
    pub(crate) fn join_with(&mut self, place: usize, multi: Box<Multi>) -> Result<(), Box<Multi>> {
        let shared = Arc::clone(&self.shared);
        let State { db, resp3, .. } = self.lanes.state(self.clients[place].lane_set);
        let of_key = |(db, key, _): &(u32, Vec<u8>, bool)| shared.placement.instance(*db, key);
        let owners: Vec<u16> = multi.keys.iter().map(of_key).collect();
        let first = owners.iter().copied().min();
        let Some(first) =
            first.filter(|_| self.may_commit(place, multi.size(), multi.words, &owners))
        else {
            return Err(multi);
        };
        let (expect, now) = (self.owe_commit(place), self.now);
        let commit = self.forming(usize::from(first), resp3);
        commit.begin(expect, now);
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

    /// True if everything about a write of `length` bytes and `words` arguments is ordinary.
    fn may_commit(&self, place: usize, length: usize, words: usize, owners: &[u16]) -> bool {
        let is_prompt = |&owner: &u16| {
            let instance = usize::from(owner);
            matches!(self.instances.get(instance), Some(InstanceState::Ready(_)))
                && !self.commits.is_late(instance, self.now)
        };
        let room = self.shared.settings.argument_limit().saturating_sub(BYTES_MOST);
        let has_long_words = length > LOOKED_AT && length / words.max(1) > LONG_WORD;
        length <= LENGTH_MOST.min(room / RECORD_TIMES)
            && !has_long_words
            && self.may_run_here(place)
            && !self.shared.tells_events()
            && owners.iter().all(is_prompt)
    }

    /// The client's reply comes from a commit. Its next commands may go to other lanes, so they
    /// wait.
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

    /// The open batch of a deciding instance.
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

/// Adds a command of a transaction whose keys live on several instances; it was checked when it was
/// queued.
fn add_in_parts(commit: &mut Commit, shared: &Shared, db: u32, row: u32, command: &[u8]) {
    let row = shared.table.row(row as usize);
    with_args(command, |args| {
        let mut owners = Vec::new();
        let whole = SplitCommand::new(row, args, db, &shared.placement, &mut owners);
        if let Some((merge, whole)) = row.parts.zip(whole) {
            commit.add_whole(db, merge, whole);
        }
    });
}
