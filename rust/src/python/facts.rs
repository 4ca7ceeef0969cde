//! What anybody may ask.

use pyo3::prelude::*;

/// "release" or "debug": benchmarks refuse to measure the latter.
#[pyfunction]
pub(super) fn build_profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// The slot of a key.
#[pyfunction]
pub(super) fn slot(key: &[u8]) -> usize {
    crate::slot::slot(key)
}
