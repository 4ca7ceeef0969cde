//! What a worker has counted for INFO since the last report.

use crate::catalog::table::Table;
use crate::client::owed::Owed;
use crate::resp::reply::{aggregate, is_error, split_first};
use crate::tables::command_stats::{Count, Report};
use memchr::memmem;
use std::collections::HashMap;

/// The most kinds of errors that are counted separately, as in the servers; scripts can invent any
/// number.
const KINDS_LIMIT: usize = 128;

/// The kind that counts all others.
const OVERFLOW: &[u8] = b"ERRORSTATS_OVERFLOW";

/// The kind is the first word; it must end within this many bytes.
const KIND_LENGTH: usize = 32;

/// Kinds of errors with which a server refuses a command before it runs.
const REJECTIONS: [&[u8]; 11] = [
    b"OOM",
    b"NOPERM",
    b"NOAUTH",
    b"MISCONF",
    b"READONLY",
    b"LOADING",
    b"BUSY",
    b"NOREPLICAS",
    b"MASTERDOWN",
    b"DENIED",
    b"TRYAGAIN",
];

/// The counters of a worker.
#[derive(Debug, Default)]
pub struct Tally {
    /// By row of the table.
    pub(crate) counts: Vec<Count>,
    errors: HashMap<Vec<u8>, u64>,
    /// The number of all errors sent.
    pub(crate) error_replies: u64,
    /// An instance had no memory left, since this was last read.
    pub saw_no_memory: bool,
    /// The last error said that its command did not run.
    pub(crate) was_rejection: bool,
}

impl Tally {
    /// All counters at zero.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        Self { counts: vec![Count::default(); table.len()], ..Self::default() }
    }

    /// Counts a command that ran.
    #[inline]
    pub fn called(&mut self, row: usize) {
        if let Some(count) = self.counts.get_mut(row) {
            count.calls += 1;
        }
    }

    /// Takes a call back that is counted elsewhere.
    #[cold]
    pub fn not_called(&mut self, row: usize) {
        if let Some(count) = self.counts.get_mut(row) {
            count.calls = count.calls.saturating_sub(1);
        }
    }

    /// Counts an error as the reply to a command that was counted as called. True if the client has
    /// no permission for the command.
    #[cold]
    pub fn failed(&mut self, row: usize, error: &[u8]) -> bool {
        self.note_error(error);
        if let Some(count) = self.counts.get_mut(row) {
            if self.was_rejection {
                count.calls = count.calls.saturating_sub(1);
                count.rejected += 1;
            } else {
                count.failed += 1;
            }
        }
        error.starts_with(b"-NOPERM ")
    }

    /// Counts a command that was refused.
    #[cold]
    pub fn rejected(&mut self, row: usize) {
        if let Some(count) = self.counts.get_mut(row) {
            count.rejected += 1;
        }
    }

    /// Counts an error, with or without its leading `-`.
    #[cold]
    pub fn note_error(&mut self, error: &[u8]) {
        let text = error.strip_prefix(b"-").unwrap_or(error);
        let space = memchr::memchr(b' ', &text[..text.len().min(KIND_LENGTH)]);
        let kind = space.map_or(b"ERR".as_slice(), |at| &text[..at]);
        self.was_rejection = REJECTIONS.contains(&kind);
        self.saw_no_memory |= kind == b"OOM";
        self.error_replies += 1;
        if let Some(count) = self.errors.get_mut(kind) {
            *count += 1;
        } else {
            let kind = if self.errors.len() < KINDS_LIMIT { kind } else { OVERFLOW };
            *self.errors.entry(kind.to_vec()).or_default() += 1;
        }
    }

    /// True if the error that was noted last said that its command did not run.
    #[cold]
    pub(crate) fn was_rejection(&self) -> bool {
        self.was_rejection
    }

    /// Counts the commands of a transaction that ran; its reply has one element for each.
    pub fn executed(&mut self, rows: &[u32], reply: &[u8]) {
        if !has_run(reply) {
            return;
        }
        for &row in rows {
            self.called(row as usize);
        }
        self.failed_within(rows, reply);
    }

    /// Counts a reply within a block. True if it is that of EXEC, which then counts like any other.
    pub fn of_block(&mut self, owed: &mut Owed, reply: &[u8]) -> bool {
        let Owed::Block(block) = owed else { return false };
        if block.before > 0 {
            block.before -= 1;
            if is_error(reply) {
                if block.refusal.is_empty() {
                    block.refusal = reply.to_vec();
                }
                let at = block.rows.len().wrapping_sub(block.before + 1);
                self.note_error(reply);
                self.rejected(block.rows.get(at).map_or(usize::MAX, |&row| row as usize));
            }
            return false;
        }
        self.executed(&block.rows, reply);
        *owed = Owed::Waiting(block.exec);
        true
    }

    /// True if a reply of this length can be passed on while the rest is still coming. Errors
    /// within it are not counted.
    pub fn may_stream(&mut self, owed: &Owed) -> bool {
        if let Owed::Block(block) = owed {
            block.rows.iter().for_each(|&row| self.called(row as usize));
        }
        matches!(owed, Owed::Waiting(_) | Owed::Streaming | Owed::Block(_))
    }

    /// Counts the errors in the reply of EXEC.
    fn failed_within(&mut self, rows: &[u32], reply: &[u8]) {
        if memmem::find(reply, b"\r\n-").is_none() {
            return;
        }
        let mut rest = aggregate(reply).map_or(reply, |(_, _, elements)| elements);
        for &row in rows {
            let Some((element, after)) = split_first(rest) else { return };
            if is_error(element) {
                self.failed(row as usize, element);
            }
            rest = after;
        }
    }

    /// The report of all counters; `reset` sets them to zero.
    pub fn report(&mut self, table: &Table, reset: bool) -> Report {
        let counted = self.counts.iter().enumerate().filter(|(_, one)| **one != Count::default());
        let name = |place: usize| String::from_utf8_lossy(&table.row(place).name).into_owned();
        let commands = counted.map(|(place, &count)| (name(place), count)).collect();
        let errors = self.errors.iter().map(|(kind, &count)| (kind.clone(), count)).collect();
        if reset {
            *self = Self::new(table);
        }
        Report { commands, errors }
    }
}

/// True if a transaction ran, judging by EXEC's reply.
pub(crate) fn has_run(reply: &[u8]) -> bool {
    reply.starts_with(b"*") && !reply.starts_with(b"*-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::table::{Route, Row};

    fn tally() -> (Table, Tally) {
        let row = |name: &str| Row::new(name.into(), 2, Route::Any, Vec::new());
        let table = Table::new(vec![row("get"), row("exec")]).expect("links");
        let tally = Tally::new(&table);
        (table, tally)
    }

    #[test]
    fn an_error_after_a_call_is_a_failure_or_a_rejection() {
        let (table, mut tally) = tally();
        for error in [&b"-WRONGTYPE no\r\n"[..], b"-OOM no\r\n", b"-nokind\r\n"] {
            tally.called(0);
            tally.failed(0, error);
        }
        let report = tally.report(&table, true);
        let expected = Count { calls: 2, rejected: 1, failed: 2 };
        assert_eq!(report.commands, [("get".to_string(), expected)]);
        let mut errors = report.errors;
        errors.sort();
        let kinds: [&[u8]; 3] = [b"ERR", b"OOM", b"WRONGTYPE"];
        assert_eq!(errors, kinds.map(|kind| (kind.to_vec(), 1)));
        assert!(tally.report(&table, false).commands.is_empty());
    }

    #[test]
    fn commands_of_a_transaction_count_if_it_ran() {
        let (table, mut tally) = tally();
        tally.executed(&[0, 0], b"*-1\r\n");
        assert!(tally.report(&table, false).commands.is_empty());
        tally.executed(&[0, 0], b"*2\r\n$4\r\n\r\n-x\r\n-ERR no\r\n");
        let expected = Count { calls: 2, rejected: 0, failed: 1 };
        assert_eq!(tally.report(&table, false).commands, [("get".to_string(), expected)]);
    }

    #[test]
    fn kinds_of_errors_are_limited() {
        let (table, mut tally) = tally();
        for number in 0..1000 {
            tally.note_error(format!("-E{number} no\r\n").as_bytes());
        }
        let errors = tally.report(&table, false).errors;
        assert_eq!(errors.len(), KINDS_LIMIT + 1);
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }
}
