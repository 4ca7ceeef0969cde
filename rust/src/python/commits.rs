//! The lock table and the workers' commits, for the coordinator; `_core.pyi` explains each.

use super::Proxy;
use crate::tables::lock::{Holder, Want};
use crate::threads::letters;
use crate::threads::shared::Shared;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use std::sync::Arc;

/// The lock table, for the coordinator.
#[pyclass(frozen, name = "LockTable")]
pub(super) struct PyLockTable {
    shared: Arc<Shared>,
}

/// A lock holds.
#[pyclass(frozen, get_all)]
pub(super) struct Locked {
    pub(super) token: u64,
}

#[pymethods]
impl PyLockTable {
    #[new]
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// Asks for a lock on keys (database, key, exclusive) or on everything; its token, and whether
    /// it holds already. Else a `Locked` comes once it does: nothing is in flight to these instances
    /// that could miss it. Of one that `is_told` workers let their clients wait for those keys.
    #[allow(clippy::needless_pass_by_value, reason = "what Python gives is ours")]
    pub(crate) fn ask(
        &self,
        keys: Vec<(u32, PyBackedBytes, bool)>,
        everything: bool,
        instances: Vec<usize>,
        is_told: bool,
        spares_doubts: bool,
    ) -> (u64, bool) {
        let table = &self.shared.lock_table;
        let keys =
            keys.iter().map(|(db, key, exclusive)| (table.fingerprint(*db, key), *exclusive));
        let want = Want {
            keys: keys.collect(),
            everything,
            instances,
            holder: Holder::Coordinator,
            is_told,
            spares_doubts,
        };
        let (token, begun) = self.shared.ask_lock(want, None);
        (token, begun.is_some() && !is_told)
    }

    /// Lets a lock that is held keep only these of its keys, and nobody wait for them: what becomes
    /// of them is known only when the instance is back.
    #[allow(clippy::needless_pass_by_value, reason = "what Python gives is ours")]
    pub(crate) fn doubt(&self, token: u64, keys: Vec<(u32, Vec<u8>, bool)>, instance: usize) {
        let table = &self.shared.lock_table;
        let keys = keys.iter().map(|(db, key, alone)| (table.fingerprint(*db, key), *alone));
        self.shared.doubt_lock(token, keys.collect(), instance);
    }

    /// The instance that must be back before a lock can hold that was asked for, if there is one.
    pub(crate) fn waits_for(&self, token: u64) -> Option<usize> {
        self.shared.lock_waits_for(token)
    }

    /// Ends a lock, or the wait for one.
    pub(crate) fn release(&self, token: u64) {
        self.shared.release_lock(token, None);
    }

    /// How many locks are held or waited for.
    fn count(&self) -> usize {
        self.shared.lock_table.count()
    }
}

/// The workers' commits, for the coordinator.
#[pyclass(frozen)]
pub(super) struct WorkerCommits {
    shared: Arc<Shared>,
}

/// A commit of a worker that the coordinator must settle.
#[pyclass(frozen, get_all)]
pub(super) struct Unsettled {
    token: Option<u64>,
    name: Vec<u8>,
    first: usize,
    others: Vec<usize>,
    lanes: Vec<(usize, Vec<u8>)>,
}

impl From<letters::Unsettled> for Unsettled {
    fn from(one: letters::Unsettled) -> Self {
        let letters::Unsettled { token, name, first, others, lanes } = one;
        Self { token, name, first, others, lanes }
    }
}

/// Records of finished commits wait to be deleted.
#[pyclass(frozen)]
pub(super) struct Finished {}

#[pymethods]
impl WorkerCommits {
    #[new]
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// What their names begin with.
    fn prefix(&self) -> Vec<u8> {
        self.shared.finished.prefix.clone()
    }

    /// Takes the names of those that have finished and whose record is still on this instance.
    fn take_finished(&self, first: usize) -> Vec<Vec<u8>> {
        self.shared.finished.take(first)
    }

    /// How many records an instance had of those that have finished.
    fn records_of(&self, instance: usize) -> u64 {
        self.shared.finished.records_of(instance)
    }
}
