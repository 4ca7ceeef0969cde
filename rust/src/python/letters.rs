//! Letters of the workers, as the coordinator reads them; `_core.pyi` explains each.

use super::Proxy;
use super::commits::{Finished, Locked, Unsettled};
use super::pubsub::{Interest, Said, Subscribe, Subscribed};
use super::scripts::{Overdue, Strayed};
use crate::client_info::ClientInfo;
use crate::ears;
use crate::shared::{ClientKey, ToCoordinator};
use crate::upstreams;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

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
}

impl Command {
    /// Whose it is.
    pub(super) fn key(&self) -> ClientKey {
        ClientKey { worker: self.worker, place: self.place, generation: self.generation }
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
            let args = words_to_python(py, &args)?;
            let queued = queued.map(|queued| {
                let commands = queued.iter().map(|args| words_to_python(py, args));
                PyList::new(py, commands.collect::<PyResult<Vec<_>>>()?).map(Bound::unbind)
            });
            let queued = queued.transpose()?;
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            Py::new(
                py,
                Command { worker, place, generation, info, args, queued, token, is_question },
            )?
            .into_any()
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
                ears::Heard::Pong => "pong",
                ears::Heard::Everything => "everything",
                ears::Heard::Lost => "lost",
            };
            Py::new(py, Heard { instance, what })?.into_any()
        }
        ToCoordinator::Upstream { instance, said } => {
            let pong = match said {
                upstreams::Said::Pong(number) => Some(number),
                upstreams::Said::Lost => None,
            };
            Py::new(py, Said { instance, pong })?.into_any()
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
        ToCoordinator::Subscribe { key, kind, names } => {
            let (worker, place, generation) = (key.worker, key.place, key.generation);
            let kind = kind as usize;
            Py::new(py, Subscribe { worker, place, generation, kind, names })?.into_any()
        }
        ToCoordinator::Subscribed(ticket) => Py::new(py, Subscribed { ticket })?.into_any(),
        ToCoordinator::Interest { kind, names, is_wanted } => {
            Py::new(py, Interest { kind: kind as usize, names, is_wanted })?.into_any()
        }
        ToCoordinator::Stopped(worker) => Py::new(py, Stopped { worker })?.into_any(),
    })
}

fn words_to_python(py: Python, words: &[Vec<u8>]) -> PyResult<Py<PyList>> {
    let words = words.iter().map(|word| PyBytes::new(py, word));
    PyList::new(py, words).map(Bound::unbind)
}

fn left_to_python(py: Python, key: ClientKey, is_gone: bool) -> PyResult<Py<PyAny>> {
    let (worker, place, generation) = (key.worker, key.place, key.generation);
    Ok(Py::new(py, Left { worker, place, generation, is_gone })?.into_any())
}
