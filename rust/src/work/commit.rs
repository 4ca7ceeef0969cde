//! One commit: writes of one or many clients over several instances, applied all or nothing.
//!
//! It is a two-phase commit of stock commands, with records in a database that clients cannot see.
//! `coordinator/multikey/commits.py` does the same, and resolves what a crash leaves behind:
//!
//! ```text
//! participants:  SET prepared:NAME, MULTI, SELECT, commands …     all must reply QUEUED
//! leader:        MULTI, SELECT, commands …, SET decided:NAME, EXEC   this decides the commit
//! participants:  EXEC                           their last command is DEL prepared:NAME
//! leader:        DEL decided:NAME               soon, with the next commit
//! ```
//! Writes that many clients send at the same time form one commit (group commit), so they share the
//! cost of its messages, records and locks. They are unrelated; it does no harm that they become
//! visible together.

use crate::base::begun::Begun;
use crate::base::number::push_u64;
use crate::base::own_names::Record;
use crate::catalog::merge_kind::Merge;
use crate::lane::lane::Expect;
use crate::resp::encode::{EXEC, MULTI};
use crate::resp::packed_keys;
use crate::resp::packed_keys::push_integer;
use crate::resp::reply::{aggregate, split_first};
use crate::resp::request::{push_array, push_bulk, push_command};
use crate::routing::merge::Merging;
use crate::routing::parts::SplitCommand;
use crate::tables::lock::Fingerprint;
use crate::threads::shared::Shared;

/// The most writes in one commit, and the most bytes of their commands. A server does nothing else
/// while it runs them.
const WRITES_MOST: usize = 128;

pub(crate) const BYTES_MOST: usize = 256 * 1024;

/// One client's write.
#[derive(Debug)]
pub(crate) struct Write {
    /// The client, and which of its replies.
    pub(crate) expect: Expect,
    /// For a transaction: the rows of its commands.
    pub(crate) rows: Option<Vec<u32>>,
    /// The client's command, or the commands of its transaction, in case the coordinator must run
    /// it.
    pub(crate) begun: Begun,
    replies: Vec<Reply>,
}

/// The source of the reply to one command.
#[derive(Debug)]
enum Reply {
    /// One instance has it.
    Of(Step),
    /// It is merged from several instances; for `Keyed`, with the instance of each key.
    Merged(Merge, Vec<u16>, Vec<Step>),
}

impl Reply {
    fn steps(&self) -> &[Step] {
        match self {
            Self::Of(step) => std::slice::from_ref(step),
            Self::Merged(_, _, steps) => steps,
        }
    }
}

/// A command on one instance.
#[derive(Debug, Clone, Copy)]
struct Step {
    instance: usize,
    /// A SELECT precedes it.
    selects: bool,
}

/// The part of one instance.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Its commands, including the SELECTs between them.
    commands: Vec<u8>,
    count: usize,
    /// The database of the last command.
    db: Option<u32>,
    /// Its keys, in the format of the record.
    keys: Vec<u8>,
    key_count: usize,
    /// The locks on these keys.
    pub(crate) locks: Vec<(Fingerprint, bool)>,
    /// The lane that it runs on, and the lane's serial number.
    pub(crate) lane: Option<(usize, u64)>,
    /// The replies of this stage that have not come.
    pub(crate) to_come: usize,
    /// The reply of EXEC.
    reply: Vec<u8>,
    /// The lane is broken.
    pub(crate) is_lost: bool,
    /// EXEC did not run, or it is unknown whether it did.
    pub(crate) has_failed: bool,
}

/// The progress of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its lock.
    Locking,
    /// The participants (all instances but the leader) queue their parts.
    Preparing,
    /// The leader runs its part.
    Deciding,
    /// The participants run their parts.
    Finishing,
}

/// One commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) name: Vec<u8>,
    /// The leader: the instance that decides.
    pub(crate) first: usize,
    pub(crate) resp3: bool,
    pub(crate) writes: Vec<Write>,
    /// By instance.
    pub(crate) parts: Vec<Part>,
    pub(crate) token: u64,
    /// Finished commits whose records the leader deletes.
    pub(crate) done: Vec<Vec<u8>>,
    pub(crate) stage: Stage,
    /// The parts that have not answered in this stage.
    pub(crate) missing: usize,
    /// An instance did not queue a command, or did not run its part.
    pub(crate) is_refused: bool,
    /// When it takes too long, in monotonic nanoseconds.
    pub(crate) deadline: u64,
}

impl Commit {
    /// A commit without writes; the instance `first` decides.
    pub(crate) fn new(name: Vec<u8>, first: usize, resp3: bool, instances: usize) -> Self {
        Self {
            name,
            first,
            resp3,
            writes: Vec::new(),
            parts: (0..instances).map(|_| Part::default()).collect(),
            token: 0,
            done: Vec::new(),
            stage: Stage::Locking,
            missing: 0,
            is_refused: false,
            deadline: u64::MAX,
        }
    }

    /// True if the next write must go into another commit.
    pub(crate) fn is_full(&self) -> bool {
        self.writes.len() >= WRITES_MOST || self.bytes() >= BYTES_MOST
    }

    /// The bytes of its commands and keys. No record is longer.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.commands.len() + part.keys.len()).sum()
    }

    /// The number of keys.
    pub(crate) fn keys(&self) -> usize {
        self.parts.iter().map(|part| part.key_count).sum()
    }

    /// Begins a client's write; commands that are added next belong to it.
    pub(crate) fn begin(&mut self, expect: Expect, at: u64) {
        let begun = Begun { raw: Vec::new(), at };
        self.writes.push(Write { expect, rows: None, begun, replies: Vec::new() });
    }

    /// Ends the write: with what the client has sent, and the rows of a transaction.
    pub(crate) fn end(&mut self, raw: Vec<u8>, rows: Option<Vec<u32>>) {
        if let Some(write) = self.writes.last_mut() {
            (write.begun.raw, write.rows) = (raw, rows);
        }
    }

    /// Adds a command of one instance.
    pub(crate) fn add_command(&mut self, instance: usize, db: u32, command: &[u8]) {
        let step = self.step(instance, db);
        self.parts[instance].commands.extend_from_slice(command);
        self.owe(Reply::Of(step));
    }

    /// Adds a command that is split over instances.
    pub(crate) fn add_whole(&mut self, db: u32, merge: Merge, whole: SplitCommand) {
        let mut steps = Vec::new();
        for instance in 0..self.parts.len() {
            let keys = whole.count(instance);
            if keys > 0 {
                steps.push(self.step(instance, db));
                whole.push_part(instance, keys, &mut self.parts[instance].commands);
            }
        }
        let order = if merge == Merge::Keyed { whole.owners.to_vec() } else { Vec::new() };
        self.owe(Reply::Merged(merge, order, steps));
    }

    fn owe(&mut self, reply: Reply) {
        if let Some(write) = self.writes.last_mut() {
            write.replies.push(reply);
        }
    }

    fn step(&mut self, instance: usize, db: u32) -> Step {
        let part = &mut self.parts[instance];
        let selects = part.db != Some(db);
        if selects {
            select(&mut part.commands, db);
            part.db = Some(db);
        }
        part.count += 1 + usize::from(selects);
        Step { instance, selects }
    }

    /// Adds a key of a command: with its database, and whether other clients may not even read it.
    pub(crate) fn add_key(&mut self, shared: &Shared, instance: usize, key: (u32, &[u8], bool)) {
        let (db, name, is_exclusive) = key;
        let part = &mut self.parts[instance];
        shared.push_lock_of(db, name, is_exclusive, &mut part.locks);
        part.key_count += 1;
        packed_keys::push(&mut part.keys, (db, name), is_exclusive);
    }

    /// True if the predicate holds for one of its keys.
    pub(crate) fn has_key(&self, is_it: impl Fn(u32, &[u8]) -> bool) -> bool {
        self.parts
            .iter()
            .flat_map(|part| packed_keys::read(&part.keys))
            .any(|(db, key)| is_it(db, key))
    }

    /// The locks of the wanted parts.
    pub(crate) fn locks(&self, is_wanted: impl Fn(&Part) -> bool) -> Vec<(Fingerprint, bool)> {
        let wanted = self.parts.iter().filter(|part| is_wanted(part));
        wanted.flat_map(|part| &part.locks).copied().collect()
    }

    /// The instances that have a part.
    pub(crate) fn instances(&self) -> impl Iterator<Item = usize> {
        (0..self.parts.len()).filter(|&instance| self.parts[instance].count > 0)
    }

    /// The participants: instances with a part, except the leader.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> {
        self.instances().filter(|&instance| instance != self.first)
    }

    /// Writes what a participant gets first.
    pub(crate) fn push_prepare(&mut self, instance: usize, hidden: u32, out: &mut Vec<u8>) {
        let key = Record::Prepared.of(&self.name);
        let record = self.record(instance);
        push_command(out, [&b"SET"[..], &key, &record].into_iter());
        let part = &mut self.parts[instance];
        out.extend_from_slice(MULTI);
        out.extend_from_slice(&part.commands);
        select(out, hidden);
        push_command(out, [&b"DEL"[..], &key].into_iter());
        part.to_come = part.count + 4;
    }

    /// The record `[first, database, keys, commands]`, as `multikey/commits.py` reads it.
    fn record(&self, instance: usize) -> Vec<u8> {
        let part = &self.parts[instance];
        let mut record = Vec::with_capacity(part.keys.len() + part.commands.len() + 64);
        push_array(&mut record, 4);
        push_integer(&mut record, self.first as u64);
        push_integer(&mut record, 0); // each command follows its own SELECT
        push_array(&mut record, part.key_count);
        record.extend_from_slice(&part.keys);
        push_array(&mut record, part.count);
        record.extend_from_slice(&part.commands);
        record
    }

    /// Writes what the leader gets.
    pub(crate) fn push_decide(&mut self, hidden: u32, out: &mut Vec<u8>) {
        let others: Vec<String> = self.others().map(|instance| instance.to_string()).collect();
        let part = &mut self.parts[self.first];
        out.extend_from_slice(MULTI);
        out.extend_from_slice(&part.commands);
        select(out, hidden);
        let key = Record::Decided.of(&self.name);
        let others = format!("[{}]", others.join(",")); // JSON
        push_command(out, [&b"SET"[..], &key, others.as_bytes()].into_iter());
        if !self.done.is_empty() {
            push_array(out, self.done.len() + 1);
            push_bulk(out, b"DEL");
            for name in &self.done {
                push_bulk(out, &Record::Decided.of(name));
            }
        }
        out.extend_from_slice(EXEC);
        part.to_come = part.count + 4 + usize::from(!self.done.is_empty());
    }

    /// Takes the reply of an instance's EXEC; false if it did not run.
    pub(crate) fn take_result(&mut self, instance: usize, reply: &[u8]) -> bool {
        let part = &mut self.parts[instance];
        let has_run = reply.starts_with(b"*") && !reply.starts_with(b"*-");
        if has_run {
            part.reply = reply.to_vec();
        }
        part.has_failed = !has_run;
        has_run
    }

    /// Calls `answer` with each write, its reply or the instance that failed it, and the end of
    /// each command's reply within that reply.
    pub(crate) fn answers(
        &self,
        mut answer: impl FnMut(&Write, Result<&mut Vec<u8>, usize>, &[usize]),
    ) {
        let elements = |part: &Part| aggregate(&part.reply).map_or(0, |(_, _, rest)| rest.len());
        let mut rests: Vec<&[u8]> = self
            .parts
            .iter()
            .map(|part| &part.reply[part.reply.len() - elements(part)..])
            .collect();
        let mut next = |step: &Step| -> &[u8] {
            let rest = &mut rests[step.instance];
            let mut element: &[u8] = b"";
            for _ in 0..=usize::from(step.selects) {
                if let Some((first, after)) = split_first(rest) {
                    (element, *rest) = (first, after);
                }
            }
            element
        };
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for write in &self.writes {
            out.clear();
            ends.clear();
            if let Some(rows) = &write.rows {
                push_array(&mut out, rows.len());
            }
            for reply in &write.replies {
                match reply {
                    Reply::Of(step) => out.extend_from_slice(next(step)),
                    Reply::Merged(merge, order, steps) => {
                        let (instances, order) = (self.parts.len(), order.clone());
                        let mut merging = Merging::new(*merge, instances, steps.len(), order);
                        for step in steps {
                            merging.add(step.instance, next(step), &mut out);
                        }
                    }
                }
                ends.push(out.len());
            }
            let mut steps = write.replies.iter().flat_map(Reply::steps);
            let failed = steps.find(|step| self.parts[step.instance].has_failed);
            answer(write, failed.map_or(Ok(&mut out), |step| Err(step.instance)), &ends);
        }
    }
}

fn select(out: &mut Vec<u8>, db: u32) {
    let mut digits = Vec::new();
    push_u64(&mut digits, u64::from(db));
    push_command(out, [&b"SELECT"[..], &digits].into_iter());
}
