//! Replies of instances for the coordinator: cut as the workers cut them, so that what goes on to
//! a client is byte for byte what the instance said.

use super::long::{PIECE, Pieces};
use crate::resp::reply::{Broken, Cutter};
use memchr::memmem;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// What a connection has received, reply by reply.
#[pyclass]
#[derive(Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
    start: usize,
    /// Where the mark that is looked for may begin, at the earliest.
    searched: usize,
    cutter: Cutter,
}

impl Replies {
    /// Takes so many bytes off the front; behind them, so many are dropped.
    fn take_off<'py>(
        &mut self,
        py: Python<'py>,
        length: usize,
        dropped: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (begin, end) = (self.start, self.start + length);
        self.start = end + dropped;
        self.searched = self.start;
        if length <= PIECE {
            return Ok(PyBytes::new(py, &self.buffer[begin..end]).into_any());
        }
        let rest = self.buffer.split_off(self.start); // of what was read last
        let data = std::mem::replace(&mut self.buffer, rest);
        (self.start, self.searched) = (0, 0);
        Ok(Bound::new(py, Pieces::new(Arc::new(data), begin..end))?.into_any())
    }
}

#[pymethods]
impl Replies {
    #[new]
    #[pyo3(signature = (pushes=false))]
    pub(crate) fn new(pushes: bool) -> Self {
        let mut replies = Self::default();
        replies.cutter.takes_pushes = pushes;
        replies
    }

    /// Adds what was read.
    fn feed(&mut self, data: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.searched) = (0, 0);
        }
        self.buffer.extend_from_slice(data);
    }

    /// The next complete replies, as they came: so many, or as many as there are.
    fn take<'py>(&mut self, py: Python<'py>, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut found = Vec::new();
        while found.len() < count {
            let Some(reply) = self.next(py)? else { break };
            found.push(reply);
        }
        Ok(found)
    }

    /// The next complete reply, as it came.
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rest = &self.buffer[self.start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let Some(length) = self.cutter.cut(rest).map_err(broken)? else {
            return Ok(None);
        };
        self.take_off(py, length, 0).map(Some)
    }

    /// What comes before a mark, once that has come.
    fn until<'py>(&mut self, py: Python<'py>, mark: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(found) = memmem::find(&self.buffer[self.searched..], mark) else {
            self.searched = self.start.max((self.buffer.len() + 1).saturating_sub(mark.len()));
            return Ok(None);
        };
        self.take_off(py, self.searched + found - self.start, mark.len()).map(Some)
    }

    /// Whether this is in what has come and was not taken.
    fn has(&self, text: &[u8]) -> bool {
        memmem::find(&self.buffer[self.start..], text).is_some()
    }

    /// How many bytes have come that were not taken.
    fn __len__(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// The elements of an array, set, map or push, as they came; an empty list for anything else.
#[pyfunction]
pub(super) fn elements<'py>(py: Python<'py>, reply: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let found = bounds(py, reply)?;
    Ok(found.into_iter().map(|(begin, end)| PyBytes::new(py, &reply[begin..end])).collect())
}

/// Where each of these begins and ends.
#[pyfunction]
pub(super) fn bounds(py: Python<'_>, reply: &[u8]) -> PyResult<Vec<(usize, usize)>> {
    if !matches!(reply.first(), Some(b'*' | b'%' | b'~' | b'>')) {
        return Ok(Vec::new());
    }
    let find = || {
        let mut at = memchr::memchr(b'\n', reply).map_or(reply.len(), |end| end + 1);
        let mut found = Vec::new();
        let mut cutter = Cutter::default();
        while at < reply.len() {
            let length = cutter.cut(&reply[at..])?.ok_or(Broken("an unfinished reply"))?;
            found.push((at, at + length));
            at += length;
        }
        Ok(found)
    };
    let found = if reply.len() > PIECE { py.detach(find) } else { find() };
    found.map_err(broken)
}

/// Whether this is one reply, and nothing else.
#[pyfunction]
pub(super) fn is_reply(text: &[u8]) -> bool {
    Cutter::default().cut(text) == Ok(Some(text.len()))
}

fn broken(Broken(why): Broken) -> PyErr {
    PyValueError::new_err(why)
}
