//! Subscriptions, and what instances publish, between the workers and the coordinator.

use super::{Proxy, own};
use crate::base::client_key::ClientKey;
use crate::catalog::channels::{KINDS, Kind, concerns_events};
use crate::tables::kept_messages::What;
use crate::threads::letters::Mail;
use crate::threads::shared::Shared;
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
    pub sequence: u32,
    pub kind: usize,
    pub names: Vec<Vec<u8>>,
}

impl Subscribe {
    pub(super) fn answer(&self, shared: &Shared, ticket: u64, is_refused: bool) {
        let (worker, place, generation) = (self.worker, self.place, self.generation);
        let key = ClientKey { worker, place, generation };
        let (sequence, kind, names) = (self.sequence, KINDS[self.kind], &self.names);
        if !is_refused {
            shared.are_upstream(kind, names);
        }
        let refused = is_refused.then(|| (kind, names.clone()));
        shared.doors[worker].mailbox.post(Mail::Subscribe { key, sequence, ticket, refused });
    }
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

/// An instance has answered the PING with this number; none: it refuses everything because it is busy, or
/// the connection is lost.
#[pyclass(frozen, get_all)]
pub(super) struct Said {
    pub instance: usize,
    pub pong: Option<u64>,
    pub is_busy: bool,
}

/// The connections on which instances publish.
#[pyclass(frozen)]
pub(super) struct EventFeeds {
    shared: Arc<Shared>,
}

#[pymethods]
impl EventFeeds {
    #[new]
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// The channel of marks.
    fn marks<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.shared.upstreams.marks)
    }

    /// Our own subscription to events of all databases.
    #[staticmethod]
    fn events(py: Python<'_>) -> Bound<'_, PyBytes> {
        PyBytes::new(py, crate::tables::event_feeds::EVENTS)
    }

    /// Whether a subscription of this kind to this name may hear of keyspace events.
    #[staticmethod]
    fn concerns_events(kind: usize, name: &[u8]) -> PyResult<bool> {
        let kind = KINDS.get(kind).ok_or_else(|| PyValueError::new_err("no such kind"))?;
        Ok(concerns_events(*kind, name))
    }

    /// Reads and writes a connection to an instance; the descriptor is ours from here.
    fn open(&self, instance: usize, fd: i32) {
        self.shared.upstreams.open(instance, own(fd));
    }

    /// Ends it.
    fn close(&self, instance: usize) {
        self.shared.upstreams.close(instance);
    }

    /// Sends commands; false if the rest must be sent later, by another call.
    fn send(&self, instance: usize, commands: &[u8]) -> bool {
        self.shared.upstreams.send(instance, commands)
    }

    /// Reads what an instance has published.
    fn hear(&self, py: Python, instance: usize) {
        py.detach(|| self.shared.hear_upstream(instance));
    }

    /// Whether a client listens to keyspace events.
    fn tells_events(&self) -> bool {
        self.shared.tells_events()
    }

    /// Keeps the events that are marked with this number.
    fn keep(&self, id: u64) {
        self.shared.upstreams.kept().keep(id);
    }

    /// Adds one that nobody has told, or a message.
    pub(crate) fn add(
        &self,
        id: u64,
        step: u64,
        kind: usize,
        channel: Vec<u8>,
        payload: Vec<u8>,
    ) -> PyResult<()> {
        let kind = KINDS.get(kind).ok_or_else(|| PyValueError::new_err("no such kind"))?;
        self.shared.upstreams.kept().add(id, step, What::Published(*kind, channel, payload));
        Ok(())
    }

    /// Adds the event that a key has expired, behind everything.
    fn add_end(&self, id: u64, channel: Vec<u8>, payload: Vec<u8>) {
        let what = What::Published(Kind::Channel, channel, payload);
        self.shared.upstreams.kept().add_end(id, what);
    }

    /// A lent key had expired before the command came to it; if no instance says so, it is this event.
    fn add_first(&self, id: u64, db: u64, key: Vec<u8>, channel: Vec<u8>, payload: Vec<u8>) {
        let what = What::Published(Kind::Channel, channel, payload);
        self.shared.upstreams.kept().add_first(id, db, key, what);
    }

    /// A command lends these keys: if they expire meanwhile, that is kept.
    fn lend(&self, id: u64, db: u64, keys: Vec<Vec<u8>>) {
        self.shared.upstreams.kept().lend(id, db, keys);
    }

    /// It has not lent these.
    pub(crate) fn give_back(&self, id: u64, db: u64, keys: Vec<Vec<u8>>) {
        self.shared.give_back(id, db, keys);
    }

    /// It writes this one: that what was there has expired is not told.
    fn settle(&self, id: u64, db: u64, key: Vec<u8>) {
        self.shared.upstreams.kept().settle(id, db, key);
    }

    /// How many would receive a message.
    fn receivers(&self, kind: usize, channel: &[u8]) -> PyResult<usize> {
        let kind = KINDS.get(kind).ok_or_else(|| PyValueError::new_err("no such kind"))?;
        Ok(self.shared.registry.receivers(*kind, channel))
    }

    /// Tells what was kept, step by step.
    fn tell(&self, id: u64) {
        self.shared.tell_kept(id);
    }

    /// Forgets it; that lent keys have expired is told.
    fn forget(&self, id: u64) {
        self.shared.forget_kept(id);
    }
}
