//! Functions that need no proxy.

use super::convert::os_error;
use crate::base::own_names::{self, Name, Record};
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
    crate::base::glob::matches(pattern, text)
}

/// What names of records of a kind begin with: "prepared", "decided", "waited" or "swept".
#[pyfunction]
pub(super) fn record_prefix<'py>(py: Python<'py>, kind: &str) -> PyResult<Bound<'py, PyBytes>> {
    let record = match kind {
        "prepared" => Record::Prepared,
        "decided" => Record::Decided,
        "waited" => Record::BlockingKeys,
        "swept" => Record::Swept,
        _ => return Err(PyValueError::new_err("no such record")),
    };
    Ok(PyBytes::new(py, record.prefix()))
}

/// What names of our users and connections of a kind begin with: "admin", "nobody", "guard",
/// "lane", "script", "checked" or "line"; all of them, without a kind.
#[pyfunction]
#[pyo3(signature = (kind = None))]
pub(super) fn our_prefix<'py>(
    py: Python<'py>,
    kind: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let prefix = match kind {
        None => own_names::OURS,
        Some("admin") => own_names::ADMIN,
        Some("nobody") => own_names::NOBODY,
        Some("guard") => Name::SandboxUser.prefix(),
        Some("lane") => Name::Lane.prefix(),
        Some("script") => Name::Script.prefix(),
        Some("checked") => Name::Checked.prefix(),
        Some("line") => Name::Line.prefix(),
        Some(_) => return Err(PyValueError::new_err("no such name")),
    };
    Ok(PyBytes::new(py, prefix))
}

/// Whether a user or a connection is ours.
#[pyfunction]
pub(super) fn is_our_name(name: &[u8]) -> bool {
    own_names::is_ours(name)
}

/// What nothing else is called: the rest of a record's name.
#[pyfunction]
pub(super) fn unique_name(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    own_names::unique().map(|name| PyBytes::new(py, &name)).map_err(os_error)
}

/// Whether a key is one of our records.
#[pyfunction]
pub(super) fn is_record(key: &[u8]) -> bool {
    own_names::is_record(key)
}

/// Whether a channel is ours.
#[pyfunction]
pub(super) fn is_our_channel(name: &[u8]) -> bool {
    own_names::is_channel(name)
}

/// The slot of a key.
#[pyfunction]
pub(super) fn slot(key: &[u8]) -> usize {
    crate::routing::slots::slot(key)
}
