//! MONITOR: shows each command that a client runs to the clients that monitor.
//!
//! ```text
//! take ─► Worker::lines ─(once a turn)─► Mail::Lines to every worker ─► its monitors
//! EXEC by the coordinator ─► Unshown, until it is known which commands ran
//! ```
//! Lines leave before the lanes are written, so no reply overtakes the line of its command.

use crate::base::client_key::ClientKey;
use crate::catalog::table::{Route, Row, Verb};
use crate::client::closing::Closing;
use crate::core::worker::Worker;
use crate::resp::request::{Args, Cut, Limits, Request};
use crate::threads::letters::{Mail, ToCoordinator};
use rustix::time::{ClockId, clock_gettime};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const REDACTED: &[u8] = b"(redacted)";

impl Worker {
    /// True while any worker has a client in MONITOR.
    #[inline]
    pub(crate) fn is_monitored(&self) -> bool {
        self.shared.monitors.load(Relaxed) > 0
    }

    /// On a server, a monitor counts as a replica, and so may not touch keys.
    pub(crate) fn refuse_to_monitor(&mut self, place: usize, row: &Row) -> bool {
        let is_refused = self.clients[place].session.monitor.is_on && row.touches_keys;
        if is_refused {
            self.refuse(place, "ERR Replica can't interact with the keyspace");
            self.spoil_multi(place);
        }
        is_refused
    }

    /// Shows a command that was taken.
    pub(crate) fn show(&mut self, place: usize, row: &Row, args: Args) {
        if !row.is_shown || row.route == Route::Refuse {
            return;
        }
        let mut line = Vec::new();
        self.push_line(&mut line, place, row, args);
        match &mut self.clients[place].session.monitor.unshown {
            Some((_, exec)) if row.is_exec() => *exec = line,
            _ => self.lines.append(&mut line),
        }
    }

    /// Shows the commands of a transaction.
    pub(crate) fn show_queued(&mut self, place: usize, commands: &[u8]) {
        let lines = self.lines_of(place, commands);
        self.lines.extend(lines.into_iter().flatten());
    }

    /// Keeps the lines about a transaction until it is known whether it ran.
    pub(crate) fn show_queued_later(&mut self, place: usize, commands: &[u8]) {
        let lines = self.lines_of(place, commands);
        self.clients[place].session.monitor.unshown = Some((lines, Vec::new()));
    }

    /// Shows a transaction that has ended; its commands only if they ran and were not shown yet.
    pub(crate) fn show_kept(&mut self, place: usize, with_commands: bool) {
        if let Some((queued, mut exec)) = self.clients[place].session.monitor.unshown.take() {
            for (at, mut line) in queued.into_iter().enumerate().filter(|_| with_commands) {
                self.lines.append(&mut line);
                self.show_script_lines(place, at);
            }
            let db = self.lanes.state(self.clients[place].lane_set).db;
            put_database(&mut exec, db);
            self.lines.append(&mut exec);
        }
        self.clients[place].session.monitor.of_scripts.clear();
    }

    /// Keeps the lines of a transaction's scripts until its reply, which comes next.
    pub(crate) fn keep_script_lines(&mut self, key: ClientKey, lines: Vec<(usize, Vec<u8>)>) {
        let client = self.clients.get_mut(key.place);
        if let Some(client) = client.filter(|client| client.generation == key.generation) {
            client.session.monitor.of_scripts = lines;
        }
    }

    /// Shows the lines of the script that is command number `at` of a transaction.
    pub(crate) fn show_script_lines(&mut self, place: usize, at: usize) {
        for (_, lines) in
            self.clients[place].session.monitor.of_scripts.iter_mut().filter(|one| one.0 == at)
        {
            self.lines.append(lines);
        }
    }

    /// One line for each command; empty for one that is not shown.
    fn lines_of(&self, place: usize, mut commands: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut request = Request::default();
        while let Ok(Cut::Complete(length)) = request.cut(commands, Limits::NONE) {
            let args = request.args(&commands[..length]);
            let mut line = Vec::new();
            if let Some(row) = self.shared.table.row_of(args)
                && row.is_shown
            {
                self.push_line(&mut line, place, row, args);
            }
            lines.push(line);
            request.reset();
            commands = &commands[length..];
            if commands.is_empty() {
                break;
            }
        }
        lines
    }

    fn push_line(&self, lines: &mut Vec<u8>, place: usize, row: &Row, args: Args) {
        let client = &self.clients[place];
        let peer = &client.session.peer;
        let db = self.lanes.state(client.lane_set).db;
        let now = clock_gettime(ClockId::Realtime);
        // Writing to memory does not fail.
        let _ = write!(lines, "+{}.{:06} [{db} ", now.tv_sec, now.tv_nsec / 1000);
        if peer.is_unix {
            let path = peer.address.strip_suffix(":0").unwrap_or(&peer.address);
            let _ = write!(lines, "unix:{path}]");
        } else {
            let _ = write!(lines, "{}]", peer.address);
        }
        let secret = secrets(row, args);
        for (at, arg) in args.iter().enumerate() {
            lines.push(b' ');
            push_quoted(lines, if secret.contains(&at) { REDACTED } else { arg });
        }
        lines.extend_from_slice(b"\r\n");
    }

    /// Sends this turn's lines to all monitors.
    pub(crate) fn post_lines(&mut self) {
        if !self.lines.is_empty() {
            let lines: Arc<[u8]> = std::mem::take(&mut self.lines).into();
            for door in &self.shared.doors {
                door.mailbox.post(Mail::Lines(Arc::clone(&lines)));
            }
        }
    }

    /// Delivers lines to this worker's monitors.
    pub(crate) fn deliver_lines(&mut self, lines: &[u8]) {
        for place in self.monitors.clone() {
            if self.clients[place].closing != Closing::Now {
                self.clients[place].push(lines[0], &lines[1..]);
                self.mark_dirty(place);
            }
        }
    }

    /// Begins MONITOR; its reply comes next.
    pub(crate) fn begin_monitoring(&mut self, place: usize) {
        if !std::mem::replace(&mut self.clients[place].session.monitor.is_on, true) {
            self.monitors.push(place);
            self.shared.monitors.fetch_add(1, Relaxed);
        }
    }

    /// Ends MONITOR, by RESET or because the client leaves; the coordinator is notified.
    pub(crate) fn end_monitoring(&mut self, place: usize) {
        if std::mem::take(&mut self.clients[place].session.monitor.is_on) {
            self.monitors.retain(|&known| known != place);
            self.shared.monitors.fetch_sub(1, Relaxed);
            self.shared.coordinator.post(ToCoordinator::Gone(self.key(place)));
        }
    }
}

/// Puts the database that its commands have selected into the line of EXEC.
fn put_database(line: &mut Vec<u8>, db: u32) {
    let begin = line.iter().position(|&byte| byte == b'[').map(|at| at + 1);
    let Some(begin) = begin else { return };
    let digits = line[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    line.splice(begin..begin + digits, db.to_string().into_bytes());
}

/// The arguments that must not be shown.
pub(crate) fn secrets(row: &Row, args: Args) -> Vec<usize> {
    if row.route == Route::Session(Verb::Auth) {
        return (1..args.len()).collect();
    }
    if row.traits.has_auth_option {
        return (6..args.len()).filter(|&at| is_password(args, at)).collect();
    }
    if row.route != Route::Session(Verb::Hello) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = 2;
    while at < args.len() {
        let more = args.len() - at - 1;
        if args.get(at).eq_ignore_ascii_case(b"AUTH") && more >= 2 {
            found.extend([at + 1, at + 2]);
            at += 3;
        } else if args.get(at).eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
            at += 2;
        } else {
            break;
        }
    }
    found
}

/// Whether an argument belongs to AUTH or AUTH2.
fn is_password(args: Args, at: usize) -> bool {
    let is = |place: usize, word: &[u8]| place >= 6 && args.get(place).eq_ignore_ascii_case(word);
    is(at - 1, b"AUTH") || is(at - 1, b"AUTH2") || is(at - 2, b"AUTH2")
}

/// Appends a text in quotes; all that is not printable is escaped.
fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'"');
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|byte| is_plain(byte)).count();
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            _ => {
                let digit = |value: u8| DIGITS[usize::from(value)];
                out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_escaped_as_the_server_does() {
        let mut out = Vec::new();
        push_quoted(&mut out, b"a\"\\\n\r\t\x07\x08\x00\x7f\xff ~");
        assert_eq!(out, br#""a\"\\\n\r\t\a\b\x00\x7f\xff ~""#);
    }
}
