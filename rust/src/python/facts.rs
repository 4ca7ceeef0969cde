//! What anybody may ask.

use super::convert::os_error;
use crate::records::{self, Record};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// "release" or "debug": benchmarks refuse to measure the latter.
#[pyfunction]
pub(super) fn build_profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// Whether a pattern of the server's kind matches.
#[pyfunction]
pub(super) fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    crate::glob::matches(pattern, text)
}

/// What names of records of a kind begin with: "prepared", "decided" or "waited".
#[pyfunction]
pub(super) fn record_prefix<'py>(py: Python<'py>, kind: &str) -> PyResult<Bound<'py, PyBytes>> {
    let record = match kind {
        "prepared" => Record::Prepared,
        "decided" => Record::Decided,
        "waited" => Record::Waited,
        _ => return Err(PyValueError::new_err("no such record")),
    };
    Ok(PyBytes::new(py, record.prefix()))
}

/// What nothing else is called: the rest of a record's name.
#[pyfunction]
pub(super) fn unique_name(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    records::unique().map(|name| PyBytes::new(py, &name)).map_err(os_error)
}

/// Whether a key is one of our records.
#[pyfunction]
pub(super) fn is_record(key: &[u8]) -> bool {
    records::is_record(key)
}

/// Whether a channel is ours.
#[pyfunction]
pub(super) fn is_our_channel(name: &[u8]) -> bool {
    records::is_channel(name)
}

/// The slot of a key.
#[pyfunction]
pub(super) fn slot(key: &[u8]) -> usize {
    crate::slot::slot(key)
}
