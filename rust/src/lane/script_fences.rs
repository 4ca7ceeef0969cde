//! A lane for scripts: the scripts in flight, and how their replies are told apart.
//!
//! A script can put anything into its reply, even what looks like the next reply. So each script
//! runs in a transaction, as a sandbox user (guard), followed by a fence that no script can guess:
//!
//! ```text
//! MULTI, ACL SETUSER guard …, AUTH guard, the script, AUTH admin, ECHO fence, ACL LOG 1, EXEC
//! ```
//! Replies before the script's are known by their position, and so are those after the fence. All
//! bytes between belong to the script, and can harm only the script's client. It is one transaction
//! so that the newest entry of ACL LOG is the guard's if the guard was refused anything, and so
//! that a server that refuses a part of it runs nothing.

use crate::base::own_names::ADMIN;
use crate::lane::sandbox_user::SandboxUser;
use crate::resp::encode::push_args;
use crate::resp::reply::{Broken, STRAY, aggregate, push_error, split_first};
use crate::resp::request::{Args, push_array, push_bulk, push_command};
use memchr::{memchr, memmem};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The most scripts in flight on one lane; each has its own guard.
pub(crate) const ABREAST: usize = 16;

/// The most bytes of a line that the server itself sends before the script has run.
const LINE_LIMIT: usize = 4096;

/// The commands besides those that set up the guard: AUTH, the script, AUTH, ECHO, ACL LOG.
const AROUND: usize = 5;

const MALFORMED: &[u8] = b"-ERR threadis: the script's reply was malformed\r\n";

const OK: &[u8] = b"+OK\r\n";

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// What guards and fences are made from.
#[derive(Debug)]
pub(crate) struct Means<'a> {
    /// The rules of a new guard, before those of its keys.
    pub(crate) rules: &'a [Vec<u8>],
    /// The password of the lanes.
    pub(crate) password: &'a [u8],
    /// 32 hexadecimal digits that cannot be guessed.
    pub(crate) nonce: [u8; 32],
}

/// The scripts in flight on one lane.
#[derive(Debug)]
pub(crate) struct Fences {
    /// The prefix of the guards' names.
    id: String,
    /// The number of guards' names so far.
    names: usize,
    guards: Vec<SandboxUser>,
    /// The places of guards without a script.
    free: Vec<usize>,
    flights: VecDeque<Flight>,
    /// The coordinator knows that the oldest script runs too long.
    pub(crate) is_overdue: bool,
}

/// One script in flight.
#[derive(Debug)]
struct Flight {
    script: Arc<[u8]>,
    /// The client's command, to be run elsewhere if it does not run here.
    command: Vec<u8>,
    guard: usize,
    fence: Vec<u8>,
    /// The number of commands that set up the guard.
    set_up: usize,
    /// The bytes of the replies that were searched for the fence in vain.
    searched: usize,
    /// The second in which it became the oldest.
    since: u64,
}

/// The outcome of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The script's reply.
    Reply(Range<usize>),
    /// It has not run; the error (out of memory, or another script runs, for instance).
    NotRun(Range<usize>),
    /// It has touched something it may not touch; the entry of ACL LOG.
    Strayed(Range<usize>),
    /// Its bytes are not one reply; the error for the client instead.
    Malformed(Vec<u8>),
}

/// All replies of one transaction.
#[derive(Debug)]
pub(crate) struct Block {
    /// Their length in bytes.
    pub(crate) length: usize,
    pub(crate) outcome: Outcome,
    pub(crate) script: Arc<[u8]>,
    /// The client's command.
    pub(crate) command: Vec<u8>,
    /// The guard's name.
    pub(crate) guard: Vec<u8>,
    /// The coordinator was notified that it runs too long.
    pub(crate) was_overdue: bool,
}

impl Fences {
    /// A lane without scripts; `id` must be unique among lanes.
    pub(crate) fn new(id: String) -> Self {
        let guards =
            (0..ABREAST).map(|number| SandboxUser::new(&format!("{id}-{number}"))).collect();
        let free = (0..ABREAST).rev().collect();
        Self { id, names: ABREAST, guards, free, flights: VecDeque::new(), is_overdue: false }
    }

    /// The number of further scripts that may be sent.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// True if no script is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// The same guards for the next connection, so that no user is left behind in the instance.
    /// Guards of scripts with an unknown outcome may be in ACL LOG, and get new names.
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

    /// The seconds since the oldest script became the oldest.
    pub(crate) fn age(&self, now: u64) -> u64 {
        self.flights.front().map_or(0, |flight| now.saturating_sub(flight.since))
    }

    /// Cuts the replies of the oldest script, once all are there.
    ///
    /// # Errors
    /// `Broken` if the server's own replies are not as expected.
    pub(crate) fn cut(&mut self, buffer: &[u8], now: u64) -> Result<Option<Block>, Broken> {
        let flight = self.flights.front_mut().ok_or(STRAY)?;
        let guard = &self.guards[flight.guard];
        let Some((length, outcome)) = flight.cut(buffer, guard)? else { return Ok(None) };
        let guard = guard.name.clone();
        let Some(flight) = self.flights.pop_front() else { return Ok(None) };
        match outcome {
            Outcome::Reply(_) => {}
            // If this run was to create the guard's rules, they do not exist.
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

    /// Cuts from the reply of EXEC on, where anything may come before the fence.
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

    /// Finds what the script has written, which is the last of the replies inside EXEC's. `None` if
    /// a command that sets up the guard failed: the script then ran as another user.
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
        let text = rest.strip_suffix(OK)?; // the lane's own AUTH
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

/// The line at the front, with its end; `None` if it is not complete.
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
