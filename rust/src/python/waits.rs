//! Keys for which clients wait, as the coordinator sees them; `_core.pyi` explains each.

use super::letters::Command;
use super::{Proxy, rows};
use crate::threads::shared::Shared;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// Keys for which someone waits, for the coordinator, where he does.
#[pyclass(frozen)]
pub(super) struct Waits {
    shared: Arc<Shared>,
}

#[pymethods]
impl Waits {
    #[new]
    pub(crate) fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// Takes note that someone waits for a key.
    pub(crate) fn add(&self, db: u32, key: &[u8]) {
        self.shared.blocking_keys.add(db, key);
    }

    /// Takes note that he does no more.
    pub(crate) fn remove(&self, db: u32, key: &[u8]) {
        self.shared.blocking_keys.remove(db, key);
    }

    /// The keys that begin so for which someone waits.
    fn beginning(&self, py: Python, db: u32, prefix: &[u8]) -> Vec<Py<PyBytes>> {
        let found = self.shared.blocking_keys.beginning(db, prefix);
        found.iter().map(|key| PyBytes::new(py, key).unbind()).collect()
    }

    /// Takes note that a blocking command has been looked at.
    fn confirm(&self, py: Python, command: &Command) -> PyResult<()> {
        if self.shared.blocking_keys.many_confirmed(command.key()) {
            return Ok(());
        }
        rows::with_command(py, &self.shared.table, command, |row, args| {
            self.shared.blocking_keys.confirm(command.info.get().db, row, args);
        })
    }
}
