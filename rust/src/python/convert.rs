//! Numbers and errors between the two languages.

use pyo3::PyErr;

/// A number that may be larger than anything here.
pub(super) fn as_size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

pub(super) fn os_error(error: rustix::io::Errno) -> PyErr {
    std::io::Error::from(error).into()
}
