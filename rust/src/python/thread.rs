//! A worker's thread.

use super::os_error;
use crate::core::worker::Worker;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use std::sync::mpsc;

/// Starts a worker's thread on its CPUs and waits for its id.
pub(super) fn start_thread(worker: Worker, cpus: &[usize]) -> PyResult<i32> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(PyValueError::new_err(format!("no CPU {cpu}")));
        }
        set.set(cpu);
    }
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new().name(format!("worker-{}", worker.index)).spawn(move || {
        let pinned = if set.count() > 0 { sched_setaffinity(None, &set) } else { Ok(()) };
        let told = send.send(pinned.map(|()| gettid().as_raw_nonzero().get()));
        if told.is_ok() {
            worker.run();
        }
    })?;
    let id = receive.recv().map_err(|_| PyOSError::new_err("a worker died at start"))?;
    id.map_err(os_error)
}
