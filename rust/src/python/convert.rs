//! Numbers and errors between the two languages.

use pyo3::PyErr;

pub(super) fn os_error(error: rustix::io::Errno) -> PyErr {
    std::io::Error::from(error).into()
}
