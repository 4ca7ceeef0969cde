//! Replies of instances for the coordinator: cut as the workers cut them, so that what goes on to
//! a client is byte for byte what the instance said.

use crate::reply::{Broken, Cutter};
use crate::request::{push_array, push_bulk};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// What a connection has received, reply by reply.
#[pyclass]
#[derive(Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
    start: usize,
    cutter: Cutter,
}

#[pymethods]
impl Replies {
    #[new]
    #[pyo3(signature = (pushes=false))]
    fn new(pushes: bool) -> Self {
        let mut replies = Self::default();
        replies.cutter.takes_pushes = pushes;
        replies
    }

    /// Adds what was read.
    fn feed(&mut self, data: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// The next complete replies, as they came: so many, or as many as there are.
    fn take<'py>(&mut self, py: Python<'py>, count: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let mut found = Vec::new();
        while found.len() < count {
            let Some(reply) = self.next(py)? else { break };
            found.push(reply);
        }
        Ok(found)
    }

    /// The next complete reply, as it came.
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let rest = &self.buffer[self.start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let Some(length) = self.cutter.cut(rest).map_err(broken)? else {
            return Ok(None);
        };
        self.start += length;
        Ok(Some(PyBytes::new(py, &rest[..length])))
    }
}

/// Many commands in canonical form.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "Python hands values over")]
pub(super) fn pack_all(py: Python<'_>, commands: Vec<Vec<PyBackedBytes>>) -> Bound<'_, PyBytes> {
    let mut packed = Vec::new();
    for words in &commands {
        push_array(&mut packed, words.len());
        for word in words {
            push_bulk(&mut packed, word);
        }
    }
    PyBytes::new(py, &packed)
}

/// The elements of an array, set, map or push, as they came; an empty list for anything else.
#[pyfunction]
pub(super) fn elements<'py>(py: Python<'py>, reply: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    if !matches!(reply.first(), Some(b'*' | b'%' | b'~' | b'>')) {
        return Ok(Vec::new());
    }
    let head = memchr::memchr(b'\n', reply).map_or(reply.len(), |end| end + 1);
    let mut rest = &reply[head..];
    let mut found = Vec::new();
    let mut cutter = Cutter::default();
    while !rest.is_empty() {
        let length = cutter.cut(rest).map_err(broken)?;
        let length = length.ok_or_else(|| PyValueError::new_err("an unfinished reply"))?;
        found.push(PyBytes::new(py, &rest[..length]));
        rest = &rest[length..];
    }
    Ok(found)
}

fn broken(Broken(why): Broken) -> PyErr {
    PyValueError::new_err(why)
}
