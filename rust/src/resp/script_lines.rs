//! Selects the lines of an instance's MONITOR that belong to a client: those of the commands that
//! its scripts run. All others come from the proxy's own commands, or a worker has shown them.
//!
//! ```text
//! "CLIENT" "SETNAME" "threadis-script-7"      the coordinator runs a script, on its connection
//! "EVAL" …                                    with a mark in it: a script of the proxy
//! [0 lua] "set" …                             kept, until the outcome of call 7 is known
//! "CLIENT" "SETNAME" ""                       its end
//! ```
//! A call without effect is repeated, so its lines are not shown. A call on copies runs in a
//! database of the proxy; its lines show the database of its client.

use crate::base::own_names::Name;
use memchr::{memchr, memmem};
use std::collections::BTreeMap;
use std::io::Write;

/// The most calls that have not ended or whose outcome is unknown; and the most bytes of their
/// lines.
const CALLS_MOST: usize = 1024;

const BYTES_MOST: usize = 64 * 1024 * 1024;

/// The outcome of a call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not known yet.
    #[default]
    Open,
    /// It had no effect.
    Void,
    /// It counts, in this database of its client.
    Counts(u32),
}

/// The state of a call.
#[derive(Debug, Default)]
struct Call {
    lines: Vec<u8>,
    /// All its lines have come.
    is_over: bool,
    fate: Fate,
}

/// Reads the lines of one instance.
#[derive(Debug)]
pub(crate) struct ScriptLines {
    /// The number of databases that clients may select.
    databases: u32,
    /// A text in each script of the proxy.
    mark: Vec<u8>,
    /// The call that runs now, as the connection's name tells.
    current: Option<u64>,
    /// The script that runs now is one of the proxy's.
    is_ours: bool,
    calls: BTreeMap<u64, Call>,
    bytes: usize,
}

impl ScriptLines {
    pub(crate) fn new(databases: u32, mark: Vec<u8>) -> Self {
        Self { databases, mark, current: None, is_ours: false, calls: BTreeMap::new(), bytes: 0 }
    }

    /// Reads whole lines; appends what can be shown now.
    pub(crate) fn take(&mut self, lines: &[u8], shown: &mut Vec<u8>) {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let Some((head, words)) = parts(line) else {
                continue;
            };
            if head.ends_with(b" lua") {
                self.take_inside(line, head, shown);
            } else {
                self.note(words, shown);
            }
        }
    }

    /// Handles a line about a command inside a script.
    fn take_inside(&mut self, line: &[u8], head: &[u8], shown: &mut Vec<u8>) {
        if self.is_ours {
            return;
        }
        if let Some(number) = self.current {
            self.calls.entry(number).or_default().lines.extend_from_slice(line);
            self.bytes += line.len();
            self.bound();
        } else if database(head) < self.databases {
            shown.extend_from_slice(line);
        }
    }

    /// Handles a line about a command that came over a connection.
    fn note(&mut self, words: &[u8], shown: &mut Vec<u8>) {
        self.is_ours = memmem::find(words, &self.mark).is_some();
        let Some(name) = words.strip_prefix(b"\"CLIENT\" \"SETNAME\" \"") else {
            return;
        };
        if let Some(number) = self.current.take() {
            self.calls.entry(number).or_default().is_over = true;
            self.bound();
            self.release(number, shown);
        }
        let digits = name.strip_prefix(Name::Script.prefix());
        self.current = digits.and_then(|digits| {
            let end = memchr(b'"', digits)?;
            str::from_utf8(&digits[..end]).ok()?.parse().ok()
        });
    }

    /// Sets the outcome of a call: the database of its client, or `None` if it had no effect.
    pub(crate) fn settle(&mut self, number: u64, db: Option<u32>, shown: &mut Vec<u8>) {
        self.calls.entry(number).or_default().fate = db.map_or(Fate::Void, Fate::Counts);
        self.bound();
        self.release(number, shown);
    }

    /// The lines of a call that counts, in a database of its client; `None` if more may come.
    #[cfg(feature = "python")]
    pub(crate) fn take_call(&mut self, number: u64, db: u32) -> Option<Vec<u8>> {
        self.calls.get(&number).filter(|call| call.is_over)?;
        let mut shown = Vec::new();
        self.settle(number, Some(db), &mut shown);
        Some(shown)
    }

    pub(crate) fn release(&mut self, number: u64, shown: &mut Vec<u8>) {
        let Some(&Call { is_over: true, fate, .. }) = self.calls.get(&number) else {
            return;
        };
        if fate == Fate::Open {
            return;
        }
        let lines = self.remove(number);
        let Fate::Counts(db) = fate else {
            return;
        };
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let Some((head, words)) = parts(line) else {
                continue;
            };
            let begin = memchr(b'[', head).unwrap_or(0);
            let own = database(head);
            let db = if own < self.databases { own } else { db };
            shown.extend_from_slice(&head[..begin]);
            // Writing to memory does not fail.
            let _ = write!(shown, "[{db} lua] ");
            shown.extend_from_slice(words);
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Vec<u8> {
        let lines = self.calls.remove(&number).map(|call| call.lines).unwrap_or_default();
        self.bytes -= lines.len();
        lines
    }

    /// Drops the oldest calls if there are too many.
    fn bound(&mut self) {
        while self.calls.len() > CALLS_MOST || self.bytes > BYTES_MOST {
            let Some(&oldest) = self.calls.keys().next() else {
                return;
            };
            self.remove(oldest);
        }
    }
}

/// Splits a line into `+seconds.micros [db address` and the arguments after it.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let bracket = memchr(b'[', line)?;
    let close = bracket + memmem::find(&line[bracket..], b"] \"")?;
    Some((&line[..close], &line[close + 2..]))
}

/// The database in `+seconds.micros [db address`.
fn database(head: &[u8]) -> u32 {
    let begin = memchr(b'[', head).map_or(0, |at| at + 1);
    let digits = head[begin..].split(|&byte| byte == b' ').next().unwrap_or_default();
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: &[u8] = b"+1.1 [0 unix:/s] \"CLIENT\" \"SETNAME\" \"threadis-script-7\"\r\n";
    const UNNAMED: &[u8] = b"+1.5 [0 unix:/s] \"CLIENT\" \"SETNAME\" \"\"\r\n";
    const EVAL: &[u8] = b"+1.2 [0 unix:/s] \"EVAL\" \"x\" \"0\"\r\n";
    const OURS: &[u8] = b"+1.2 [0 unix:/s] \"EVAL\" \"--mark x\" \"0\"\r\n";
    const INSIDE: &[u8] = b"+1.3 [0 lua] \"set\" \"[0 x] \\\"\"\r\n";
    const ON_COPIES: &[u8] = b"+1.4 [17 lua] \"get\" \"a\"\r\n";
    const AS_CLIENTS: &[u8] = b"+1.4 [3 lua] \"get\" \"a\"\r\n";

    fn reader() -> ScriptLines {
        ScriptLines::new(16, b"--mark".to_vec())
    }

    fn taken(lines: &mut ScriptLines, all: &[&[u8]]) -> Vec<u8> {
        let mut shown = Vec::new();
        lines.take(&all.concat(), &mut shown);
        shown
    }

    fn settled(lines: &mut ScriptLines, number: u64, db: Option<u32>) -> Vec<u8> {
        let mut shown = Vec::new();
        lines.settle(number, db, &mut shown);
        shown
    }

    #[test]
    fn only_what_scripts_of_clients_run_is_shown() {
        let client = b"+1.0 [0 unix:/tmp/s] \"set\" \"[0 lua] \"\r\n";
        let found = taken(&mut reader(), &[b"+OK\r\n", client, EVAL, INSIDE, client, ON_COPIES]);
        assert_eq!(found, INSIDE);
        assert!(taken(&mut reader(), &[OURS, INSIDE]).is_empty());
        assert_eq!(taken(&mut reader(), &[OURS, INSIDE, EVAL, INSIDE]), INSIDE);
    }

    #[test]
    fn a_call_is_shown_once_it_counts() {
        let mut lines = reader();
        assert!(taken(&mut lines, &[NAMED, EVAL, INSIDE, ON_COPIES]).is_empty());
        assert!(settled(&mut lines, 7, Some(3)).is_empty());
        assert_eq!(taken(&mut lines, &[UNNAMED]), [INSIDE, AS_CLIENTS].concat());
        assert!(lines.calls.is_empty() && lines.bytes == 0);
        assert_eq!(taken(&mut lines, &[EVAL, INSIDE]), INSIDE);
    }

    #[test]
    fn what_is_said_may_come_behind_the_lines() {
        let mut lines = reader();
        assert!(taken(&mut lines, &[NAMED, EVAL, ON_COPIES, UNNAMED]).is_empty());
        assert_eq!(settled(&mut lines, 7, Some(3)), AS_CLIENTS);
    }

    #[test]
    fn nobody_sees_a_call_that_came_to_nothing() {
        let mut lines = reader();
        assert!(taken(&mut lines, &[NAMED, EVAL, INSIDE, UNNAMED]).is_empty());
        assert!(settled(&mut lines, 7, None).is_empty());
        assert!(lines.calls.is_empty() && lines.bytes == 0);
    }

    #[test]
    fn calls_of_which_nothing_is_heard_are_forgotten() {
        let mut lines = reader();
        for number in 0..3 * CALLS_MOST as u64 {
            assert!(settled(&mut lines, number, Some(0)).is_empty());
        }
        assert_eq!(lines.calls.len(), CALLS_MOST);
    }
}
