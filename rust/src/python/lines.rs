//! Lines of MONITOR on an instance, passed on to the clients in MONITOR.

use super::Proxy;
use super::letters::Command;
use crate::resp::script_lines::ScriptLines;
use crate::threads::letters::Mail;
use crate::threads::shared::Shared;
use pyo3::prelude::*;
use std::sync::Arc;

/// One instance's lines, of which the clients' monitors get those about their scripts.
#[pyclass]
pub(super) struct Lines {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    of_scripts: ScriptLines,
}

#[pymethods]
impl Lines {
    /// `mark` is in each script of ours.
    #[new]
    pub(crate) fn new(proxy: &Proxy, databases: u32, mark: Vec<u8>) -> Self {
        Self {
            shared: Arc::clone(&proxy.shared),
            buffer: Vec::new(),
            of_scripts: ScriptLines::new(databases, mark),
        }
    }

    /// Passes on what is complete.
    fn feed(&mut self, data: &[u8]) {
        let begun = self.buffer.len(); // no line ends there, and it may be as long as a value
        self.buffer.extend_from_slice(data);
        let complete = memchr::memrchr(b'\n', data).map_or(0, |end| begun + end + 1);
        let mut shown = Vec::new();
        self.of_scripts.take(&self.buffer[..complete], &mut shown);
        self.buffer.drain(..complete);
        self.post(shown);
    }

    /// Says what has become of a call: the database of its client, or nothing if it does not count.
    #[pyo3(signature = (number, db))]
    fn settle(&mut self, number: u64, db: Option<u32>) {
        let mut shown = Vec::new();
        self.of_scripts.settle(number, db, &mut shown);
        self.post(shown);
    }

    /// Takes the lines of a call that counts, in that database; `None` if more may come.
    fn take_call(&mut self, number: u64, db: u32) -> Option<Vec<u8>> {
        self.of_scripts.take_call(number, db)
    }

    /// Gives what scripts of a transaction have run to the worker that shows it, by their places.
    fn hand_over(&self, command: &Command, lines: Vec<(usize, Vec<u8>)>) {
        let key = command.key();
        if let Some(door) = self.shared.doors.get(key.worker) {
            door.mailbox.post(Mail::ScriptLines(key, lines));
        }
    }
}

impl Lines {
    fn post(&self, shown: Vec<u8>) {
        if shown.is_empty() {
            return;
        }
        let lines: Arc<[u8]> = shown.into();
        for door in &self.shared.doors {
            door.mailbox.post(Mail::Lines(Arc::clone(&lines)));
        }
    }
}
