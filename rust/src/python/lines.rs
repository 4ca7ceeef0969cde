//! What MONITOR shows on an instance, on its way to the monitors among the clients.

use super::Proxy;
use crate::monitor::of_scripts;
use crate::shared::{Mail, Shared};
use pyo3::prelude::*;
use std::sync::Arc;

/// One instance's lines, of which the clients' monitors get those about scripts.
#[pyclass]
pub(super) struct Lines {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

#[pymethods]
impl Lines {
    #[new]
    fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared), buffer: Vec::new() }
    }

    /// Passes on what is complete.
    fn feed(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        let complete = memchr::memrchr(b'\n', &self.buffer).map_or(0, |end| end + 1);
        let lines: Arc<[u8]> = of_scripts(&self.buffer[..complete]).into();
        self.buffer.drain(..complete);
        if !lines.is_empty() {
            for door in &self.shared.doors {
                door.mailbox.post(Mail::Lines(Arc::clone(&lines)));
            }
        }
    }
}
