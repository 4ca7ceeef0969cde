//! Messages that instances send to the coordinator's subscriptions, on their way to the workers.

use super::Proxy;
use crate::number::parse_i64;
use crate::reply::Cutter;
use crate::shared::Shared;
use crate::subscriptions::Kind;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// A worker asks for subscriptions to names; `Proxy.subscribe` goes on.
#[pyclass(frozen, get_all)]
pub(super) struct Subscribe {
    pub worker: usize,
    pub place: usize,
    pub generation: u32,
    pub kind: usize,
    pub names: Vec<Vec<u8>>,
}

/// A `Proxy.subscribe` was done.
#[pyclass(frozen, get_all)]
pub(super) struct Subscribed {
    pub ticket: u64,
}

/// Names have their first subscriber, or none any more.
#[pyclass(frozen, get_all)]
pub(super) struct Interest {
    pub kind: usize,
    pub names: Vec<Vec<u8>>,
    pub is_wanted: bool,
}

/// What an instance sends to one connection of RESP2 that has subscriptions.
#[pyclass]
pub(super) struct Feed {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    cutter: Cutter,
}

#[pymethods]
impl Feed {
    #[new]
    fn new(proxy: &Proxy) -> Self {
        let shared = Arc::clone(&proxy.shared);
        Self { shared, buffer: Vec::new(), cutter: Cutter::default() }
    }

    /// Passes messages on to their subscribers; everything else comes back.
    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.buffer.extend_from_slice(data);
        let (mut start, mut messages, mut others) = (0, Vec::new(), Vec::new());
        loop {
            let rest = &self.buffer[start..];
            let length = self.cutter.cut(rest).map_err(|why| PyValueError::new_err(why.0))?;
            let Some(length) = length else { break };
            match message(&rest[..length]) {
                Some((kind, name)) => messages.push((kind, name, &rest[1..length])),
                None => others.push(PyBytes::new(py, &rest[..length])),
            }
            start += length;
        }
        if !messages.is_empty() {
            self.shared.registry.forward(&messages, &self.shared.doors);
        }
        self.buffer.drain(..start);
        Ok(others)
    }
}

/// The subscription that a message is for; none for anything else.
fn message(reply: &[u8]) -> Option<(Kind, &[u8])> {
    let body = reply.strip_prefix(b"*3\r\n").or_else(|| reply.strip_prefix(b"*4\r\n"))?;
    let (word, rest) = bulk(body)?;
    let kind = match word {
        b"message" => Kind::Channel,
        b"pmessage" => Kind::Pattern,
        b"smessage" => Kind::Shard,
        _ => return None,
    };
    Some((kind, bulk(rest)?.0))
}

/// A bulk string and what follows it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', bytes)?;
    let length = usize::try_from(parse_i64(&bytes[..end])?).ok()?;
    let rest = bytes.get(end + 2..)?;
    Some((rest.get(..length)?, rest.get(length + 2..)?))
}
