//! What anybody may ask.

use pyo3::prelude::*;

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

/// The slot of a key.
#[pyfunction]
pub(super) fn slot(key: &[u8]) -> usize {
    crate::slot::slot(key)
}
