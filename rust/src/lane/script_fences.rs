//! A lane for scripts: what is on its way, and where the replies to one script end.
//!
//! A script can write anything into its reply, also what looks like the next one. So each runs in a
//! block, as a guard, with a fence behind it that nobody can guess:
//!
//! ```text
//! MULTI, ACL SETUSER guard …, AUTH guard, the script, AUTH admin, ECHO fence, ACL LOG 1, EXEC
//! ```
//! What stands before the script is told by its position, and so is what comes behind the fence; all
//! between is the script's and costs only that script's client. One block, so that the newest entry
//! of ACL LOG is the guard's if it was refused anything, and so that a server that refuses part of it
//! runs nothing.

use crate::base::own_names::ADMIN;
use crate::lane::sandbox_user::SandboxUser;
use crate::resp::encode::push_args;
use crate::resp::reply::{Broken, STRAY, aggregate, push_error, split_first};
use crate::resp::request::{Args, push_array, push_bulk, push_command};
use memchr::{memchr, memmem};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Scripts in flight on one lane: each has a guard of its own.
pub(crate) const ABREAST: usize = 16;

/// A line of the server's own, before a script has run, is never longer.
const LINE_LIMIT: usize = 4096;

/// Commands besides those that set the guard up: AUTH, the script, AUTH, ECHO, ACL LOG.
const AROUND: usize = 5;

const MALFORMED: &[u8] = b"-ERR threadis: the script's reply was malformed\r\n";

const OK: &[u8] = b"+OK\r\n";

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// What guards and fences are made of.
#[derive(Debug)]
pub(crate) struct Means<'a> {
    /// Rules of a new guard, before its keys.
    pub(crate) rules: &'a [Vec<u8>],
    /// The lanes' own password.
    pub(crate) password: &'a [u8],
    /// 32 hexadecimal digits that nobody can guess.
    pub(crate) nonce: [u8; 32],
}

/// The scripts in flight on one lane.
#[derive(Debug)]
pub(crate) struct Fences {
    /// Begins the guards' names.
    id: String,
    /// Guards' names so far.
    names: usize,
    guards: Vec<SandboxUser>,
    /// Places of those without a script.
    free: Vec<usize>,
    flights: VecDeque<Flight>,
    /// The coordinator knows that the oldest runs for too long.
    pub(crate) is_overdue: bool,
}

/// One script on its way.
#[derive(Debug)]
struct Flight {
    script: Arc<[u8]>,
    /// The client's command, for someone else to run if it does not run here.
    command: Vec<u8>,
    guard: usize,
    fence: Vec<u8>,
    /// Commands that set the guard up.
    set_up: usize,
    /// Bytes of the replies in which there is no fence.
    searched: usize,
    /// Second in which it became the oldest.
    since: u64,
}

/// How a script went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its reply.
    Reply(Range<usize>),
    /// It has not run, and why: out of memory for a block, say, or another script runs.
    NotRun(Range<usize>),
    /// It touched what it may not; what ACL LOG says.
    Strayed(Range<usize>),
    /// Its reply is not one reply; what is told instead.
    Malformed(Vec<u8>),
}

/// All replies of one block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Their bytes.
    pub(crate) length: usize,
    pub(crate) outcome: Outcome,
    pub(crate) script: Arc<[u8]>,
    /// The client's command.
    pub(crate) command: Vec<u8>,
    /// The guard's name.
    pub(crate) guard: Vec<u8>,
    /// The coordinator thinks that it still runs.
    pub(crate) was_overdue: bool,
}

impl Fences {
    /// A lane without scripts; `id` is no other lane's.
    pub(crate) fn new(id: String) -> Self {
        let guards =
            (0..ABREAST).map(|number| SandboxUser::new(&format!("{id}-{number}"))).collect();
        let free = (0..ABREAST).rev().collect();
        Self { id, names: ABREAST, guards, free, flights: VecDeque::new(), is_overdue: false }
    }

    /// How many more scripts may be sent.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// True if no script is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// The same guards for another connection: so they are not left behind in the instance. Those
    /// of scripts whose end is not known may be in ACL LOG, and take other names.
    pub(crate) fn renewed(mut self) -> Self {
        for flight in std::mem::take(&mut self.flights) {
            self.retire(flight.guard);
            self.free.push(flight.guard);
        }
        self.guards.iter_mut().for_each(SandboxUser::forget_rules);
        self.is_overdue = false;
        self
    }

    fn retire(&mut self, guard: usize) {
        self.names += 1;
        self.guards[guard].retire(&format!("{}-{}", self.id, self.names));
    }

    /// Appends a script that may touch these keys.
    pub(crate) fn push(
        &mut self,
        out: &mut Vec<u8>,
        script: Arc<[u8]>,
        args: Args,
        keys: &[Vec<u8>],
        means: &Means,
        now: u64,
    ) {
        let Some(place) = self.free.pop() else { return };
        let guard = &mut self.guards[place];
        let mut command = |words: &[&[u8]]| push_command(out, words.iter().copied());
        command(&[b"MULTI"]);
        let set_up = guard.set_up(out, keys, means.rules, means.password);
        push_command(out, [&b"AUTH"[..], &guard.name, means.password].into_iter());
        let begin = out.len();
        push_args(out, args);
        let sent = out[begin..].to_vec();
        push_command(out, [b"AUTH", ADMIN, means.password].into_iter());
        push_array(out, 2);
        push_bulk(out, b"ECHO");
        let begin = out.len();
        push_bulk(out, &means.nonce);
        let fence = out[begin..].to_vec();
        push_command(out, [&b"ACL"[..], b"LOG", b"1"].into_iter());
        push_command(out, [&b"EXEC"[..]].into_iter());
        self.flights.push_back(Flight {
            script,
            command: sent,
            guard: place,
            fence,
            set_up,
            searched: 0,
            since: now,
        });
    }

    /// Seconds for which the oldest script has been the oldest.
    pub(crate) fn age(&self, now: u64) -> u64 {
        self.flights.front().map_or(0, |flight| now.saturating_sub(flight.since))
    }

    /// Cuts the replies of the oldest script off, once all are there.
    ///
    /// # Errors
    /// `Broken` if the server itself said what it never says.
    pub(crate) fn cut(&mut self, buffer: &[u8], now: u64) -> Result<Option<Block>, Broken> {
        let flight = self.flights.front_mut().ok_or(STRAY)?;
        let guard = &self.guards[flight.guard];
        let Some((length, outcome)) = flight.cut(buffer, guard)? else { return Ok(None) };
        let guard = guard.name.clone();
        let Some(flight) = self.flights.pop_front() else { return Ok(None) };
        match outcome {
            Outcome::Reply(_) => {}
            // So it was not made, if this run was to make it.
            Outcome::NotRun(_) => self.guards[flight.guard].forget_rules(),
            Outcome::Strayed(_) | Outcome::Malformed(_) => self.retire(flight.guard),
        }
        self.free.push(flight.guard);
        if let Some(next) = self.flights.front_mut() {
            next.since = now;
        }
        let was_overdue = std::mem::take(&mut self.is_overdue);
        let Flight { script, command, .. } = flight;
        Ok(Some(Block { length, outcome, script, command, guard, was_overdue }))
    }
}

impl Flight {
    fn cut(
        &mut self,
        buffer: &[u8],
        guard: &SandboxUser,
    ) -> Result<Option<(usize, Outcome)>, Broken> {
        let mut at = 0;
        let mut refusal = None;
        for index in 0..=self.set_up + AROUND {
            let Some(line) = line(&buffer[at..])? else { return Ok(None) };
            let end = at + line.len();
            match line {
                OK if index == 0 => {}
                QUEUED if index > 0 => {}
                [b'-', ..] if index > 0 => {
                    refusal.get_or_insert(at..end);
                }
                _ => return Err(Broken("not the reply to MULTI")),
            }
            at = end;
        }
        match buffer.get(at) {
            None => return Ok(None),
            Some(b'*') => return Ok(self.cut_run(buffer, at, guard)),
            Some(b'-') => {}
            Some(_) => return Err(Broken("not the reply to EXEC")),
        }
        // It has not run.
        let Some(exec) = line(&buffer[at..])? else { return Ok(None) };
        let end = at + exec.len();
        Ok(Some((end, Outcome::NotRun(refusal.unwrap_or(at..end)))))
    }

    /// From the reply of EXEC on, anything may stand before the fence.
    fn cut_run(
        &mut self,
        buffer: &[u8],
        at: usize,
        guard: &SandboxUser,
    ) -> Option<(usize, Outcome)> {
        let from = self.searched.max(at);
        let Some(found) = memmem::find(buffer.get(from..)?, &self.fence) else {
            self.searched = buffer.len().saturating_sub(self.fence.len());
            return None;
        };
        self.searched = from + found;
        let behind = self.searched + self.fence.len();
        let (log, _) = split_first(&buffer[behind..])?;
        let end = behind + log.len();
        let outcome = match guard.is_in(log) {
            Some(true) => Some(Outcome::Strayed(behind..end)),
            Some(false) => self.judge(&buffer[..self.searched], at),
            None => None,
        };
        Some((end, outcome.unwrap_or_else(|| Outcome::Malformed(MALFORMED.to_vec()))))
    }

    /// What the script has written, the last of the replies inside EXEC's; `None` if those before
    /// are not those of its guard's setting up: what the guard did it has done as someone else.
    fn judge(&self, buffer: &[u8], at: usize) -> Option<Outcome> {
        let (kind, count, mut rest) = aggregate(&buffer[at..])?;
        if (kind, count) != (b'*', self.set_up + AROUND) {
            return None;
        }
        for _ in 0..=self.set_up {
            let reply;
            (reply, rest) = split_first(rest)?;
            if !matches!(reply, OK | b":1\r\n" | b":0\r\n") {
                return None;
            }
        }
        let begin = buffer.len() - rest.len();
        let text = rest.strip_suffix(OK)?; // our own AUTH
        let is_one = match text.first()? {
            b'-' | b'+' => memmem::find(text, b"\r\n").map(|end| end + 2) == Some(text.len()),
            _ => split_first(text).is_some_and(|(_, rest)| rest.is_empty()),
        };
        if is_one {
            return Some(Outcome::Reply(begin..begin + text.len()));
        }
        let mut told = Vec::new();
        push_error(&mut told, text.strip_prefix(b"-")?.trim_ascii_end());
        Some(Outcome::Malformed(told))
    }
}

/// A line at the front, with its end; `None` if it is not all there.
fn line(buffer: &[u8]) -> Result<Option<&[u8]>, Broken> {
    match memchr(b'\n', &buffer[..buffer.len().min(LINE_LIMIT)]) {
        Some(end) if end > 0 && buffer[end - 1] == b'\r' => Ok(Some(&buffer[..=end])),
        Some(_) => Err(Broken("line without CR")),
        None if buffer.len() >= LINE_LIMIT => Err(Broken("endless line")),
        None => Ok(None),
    }
}

#[cfg(test)]
#[path = "script_fences_tests.rs"]
mod tests;
