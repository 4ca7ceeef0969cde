//! Letters from the workers to the coordinator; `_core.pyi` explains each.

use super::Proxy;
use super::commits::{Finished, Locked, Unsettled};
use super::long::{PIECE, Pieces};
use super::pubsub::{Interest, Said, Subscribe, Subscribed};
use super::scripts::{Overdue, Strayed};
use crate::base::client_key::ClientKey;
use crate::client::queued::Queued;
use crate::client::session::ClientInfo;
use crate::resp::request::{Cut, Limits, Request};
use crate::tables::slow_log::{Entry, Seen};
use crate::tables::{event_feeds, invalidation_feeds};
use crate::threads::letters::ToCoordinator;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::Arc;

/// A command for the coordinator.
#[pyclass(frozen, get_all)]
pub(super) struct Command {
    pub(super) worker: usize,
    pub(super) place: usize,
    pub(super) generation: u32,
    pub(super) info: Py<ClientInfo>,
    /// Made once: it is looked at often.
    pub(super) args: Py<PyList>,
    pub(super) queued: Option<Py<PyList>>,
    pub(super) token: Option<u64>,
    pub(super) is_question: bool,
    /// Words that are still to be put in their places: list, index, the word.
    pub(super) long: Vec<(Py<PyList>, usize, Py<Pieces>)>,
}

impl Command {
    /// Whose it is.
    pub(super) fn key(&self) -> ClientKey {
        ClientKey { worker: self.worker, place: self.place, generation: self.generation }
    }
}

#[pymethods]
impl ClientInfo {
    #[pyo3(name = "but")]
    fn py_but(&self, is_blocked: bool, watched: usize, is_dirty: bool) -> Self {
        self.but(is_blocked, watched, is_dirty)
    }
}

/// A client that the coordinator knows has ended its side, or is gone.
#[pyclass(frozen, get_all)]
pub(super) struct Left {
    pub(super) worker: usize,
    pub(super) place: usize,
    pub(super) generation: u32,
    pub(super) is_gone: bool,
}

/// A client has run its transaction.
#[pyclass(frozen, get_all)]
pub(super) struct Ran {
    pub(super) worker: usize,
    pub(super) place: usize,
    pub(super) generation: u32,
}

/// `Proxy.take_logged` has something.
#[pyclass(frozen)]
pub(super) struct Logged {}

/// A client was closed because too much would have had to be kept of it.
#[pyclass(frozen, get_all)]
pub(super) struct SentTooMuch {
    pub(super) info: Py<ClientInfo>,
}

/// An instance has said something of its keys: "pong", "everything" or "lost".
#[pyclass(frozen, get_all)]
pub(super) struct Heard {
    pub(super) instance: usize,
    pub(super) what: &'static str,
}

/// A worker's clients.
#[pyclass(frozen, get_all)]
pub(super) struct ClientList {
    pub(super) request: u64,
    pub(super) clients: Vec<Py<ClientInfo>>,
}

/// What a worker has counted.
#[pyclass(frozen, get_all)]
pub(super) struct Tally {
    pub(super) request: u64,
    pub(super) commands: Vec<(String, u64, u64, u64)>,
    pub(super) errors: Vec<(Vec<u8>, u64)>,
}

/// A worker's thread has ended.
#[pyclass(frozen, get_all)]
pub(super) struct Stopped {
    pub(super) worker: usize,
}

/// Clients that were denied something, each with Unix milliseconds.
#[pyfunction]
pub(super) fn denied(proxy: &Proxy) -> Vec<(u64, ClientInfo)> {
    proxy.shared.denials.all()
}

/// A client was just denied its command.
#[pyfunction]
pub(super) fn note_denied(proxy: &Proxy, client: &ClientInfo) {
    proxy.shared.denials.add(client.clone());
}

pub(super) fn letter_to_python(py: Python, letter: ToCoordinator) -> PyResult<Py<PyAny>> {
    Ok(match letter {
        ToCoordinator::HungUp(key) => left_to_python(py, key, false)?,
        ToCoordinator::Gone(key) => left_to_python(py, key, true)?,
        ToCoordinator::Locked { token } => Py::new(py, Locked { token })?.into_any(),
        ToCoordinator::Unsettled(unsettled) => Py::new(py, Unsettled::from(unsettled))?.into_any(),
        ToCoordinator::Finished => Py::new(py, Finished {})?.into_any(),
        ToCoordinator::Ran(key) => {
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            Py::new(py, Ran { worker, place, generation })?.into_any()
        }
        ToCoordinator::Command { key, info, args, queued, token, is_question } => {
            let info = Py::new(py, *info)?;
            let mut long = Vec::new();
            let (list, missing) = words_to_python(py, args.iter().map(Vec::as_slice))?;
            let mut words = args;
            for at in missing {
                let word = std::mem::take(&mut words[at]);
                let all = 0..word.len();
                let pieces = Pieces::new(Arc::new(word), all);
                long.push((list.clone_ref(py), at, Py::new(py, pieces)?));
            }
            let args = list;
            let queued =
                queued.map(|queued| queued_to_python(py, queued, &mut long)).transpose()?;
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            let command =
                Command { worker, place, generation, info, args, queued, token, is_question, long };
            Py::new(py, command)?.into_any()
        }
        ToCoordinator::Logged => Py::new(py, Logged {})?.into_any(),
        ToCoordinator::SentTooMuch(info) => {
            Py::new(py, SentTooMuch { info: Py::new(py, *info)? })?.into_any()
        }
        ToCoordinator::Strayed { key, script, guard, log } => {
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            Py::new(py, Strayed { worker, place, generation, script, guard, log })?.into_any()
        }
        ToCoordinator::Overdue { instance, is_so } => {
            Py::new(py, Overdue { instance, is_so })?.into_any()
        }
        ToCoordinator::Heard { instance, heard } => {
            let what = match heard {
                invalidation_feeds::Heard::Pong => "pong",
                invalidation_feeds::Heard::Everything => "everything",
                invalidation_feeds::Heard::Lost => "lost",
            };
            Py::new(py, Heard { instance, what })?.into_any()
        }
        ToCoordinator::Upstream { instance, said } => {
            let (pong, is_busy) = match said {
                event_feeds::Said::Pong(number) => (Some(number), false),
                event_feeds::Said::Busy => (None, true),
                event_feeds::Said::Lost => (None, false),
            };
            Py::new(py, Said { instance, pong, is_busy })?.into_any()
        }
        ToCoordinator::Clients { request, clients } => {
            let clients = clients.into_iter().map(|client| Py::new(py, client));
            Py::new(py, ClientList { request, clients: clients.collect::<PyResult<_>>()? })?
                .into_any()
        }
        ToCoordinator::Tally { request, report } => {
            let commands = report.commands.into_iter();
            let commands = commands.map(|(name, of)| (name, of.calls, of.rejected, of.failed));
            let (commands, errors) = (commands.collect(), report.errors);
            Py::new(py, Tally { request, commands, errors })?.into_any()
        }
        ToCoordinator::Subscribe { key, sequence, kind, names } => {
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            let kind = kind as usize;
            Py::new(py, Subscribe { worker, place, generation, sequence, kind, names })?.into_any()
        }
        ToCoordinator::Subscribed(ticket) => Py::new(py, Subscribed { ticket })?.into_any(),
        ToCoordinator::Interest { kind, names, is_wanted } => {
            Py::new(py, Interest { kind: kind as usize, names, is_wanted })?.into_any()
        }
        ToCoordinator::Stopped(worker) => Py::new(py, Stopped { worker })?.into_any(),
    })
}

/// A list of words, and the places in it of those that are long, and missing.
fn words_to_python<'a>(
    py: Python,
    words: impl ExactSizeIterator<Item = &'a [u8]>,
) -> PyResult<(Py<PyList>, Vec<usize>)> {
    let mut missing = Vec::new();
    let words = words.enumerate().map(|(at, word)| {
        let is_long = word.len() > PIECE;
        if is_long {
            missing.push(at);
        }
        PyBytes::new(py, if is_long { b"" } else { word })
    });
    let list = PyList::new(py, words)?.unbind();
    Ok((list, missing))
}

fn queued_to_python(
    py: Python,
    Queued { commands, count }: Queued,
    long: &mut Vec<(Py<PyList>, usize, Py<Pieces>)>,
) -> PyResult<Py<PyList>> {
    let commands = Arc::new(commands);
    let (mut lists, mut at) = (Vec::with_capacity(count), 0);
    let mut request = Request::default();
    while let Ok(Cut::Complete(length)) = request.cut(&commands[at..], Limits::NONE) {
        let args = request.args(&commands[at..at + length]);
        let (list, missing) = words_to_python(py, args.iter())?;
        for index in missing {
            let range = args.range(index);
            let pieces = Pieces::new(Arc::clone(&commands), at + range.start..at + range.end);
            long.push((list.clone_ref(py), index, Py::new(py, pieces)?));
        }
        lists.push(list);
        request.reset();
        at += length;
        if at == commands.len() {
            break;
        }
    }
    PyList::new(py, lists).map(Bound::unbind)
}

fn left_to_python(py: Python, key: ClientKey, is_gone: bool) -> PyResult<Py<PyAny>> {
    let (worker, place, generation) = (key.worker, key.place, key.generation);
    Ok(Py::new(py, Left { worker, place, generation, is_gone })?.into_any())
}

/// What workers tell the logs: address and name of the client, the command, when it ended, microseconds,
/// bytes of request and reply, parts.
pub(super) type LoggedCommand =
    ((Vec<u8>, Vec<u8>), Vec<Vec<u8>>, (u64, u64, usize, usize), Vec<Seen>);

pub(super) fn logged(entry: Entry) -> LoggedCommand {
    let Entry { address, name, args, at, took, request, reply, parts } = entry;
    ((address.into_bytes(), name), args, (at, took, request, reply), parts)
}
