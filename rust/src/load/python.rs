//! The load generator for Python: two functions that take an object with the fields of
//! [`LoadConfig`] as attributes (`threadis.bench.load.Load`) and return a dict.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{io, thread};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Batch, Fault, Keys, LoadConfig, LoadReport, preload, run_until};

const SIGNAL_CHECK: Duration = Duration::from_millis(50); // how soon Ctrl-C is noticed

/// The attributes that are read; `Address` and `Mix` describe the texts.
#[derive(FromPyObject)]
pub struct PyLoad {
    address: String,
    connections: usize,
    pipeline: usize,
    value_size: usize,
    mix: String,
    batches: Vec<(Vec<u8>, usize)>,
    key_count: u32,
    zipf: Option<f64>,
    rate: Option<f64>,
    seconds: f64,
    warmup: f64,
    threads: usize,
    password: Option<String>,
    seed: u64,
    cpus: Vec<usize>,
    private_keys: bool,
    preloaded: bool,
}

impl TryFrom<PyLoad> for LoadConfig {
    type Error = PyErr;

    fn try_from(load: PyLoad) -> PyResult<Self> {
        Ok(Self {
            nodes: load.address.split(',').map(str::parse).collect::<Result<_, _>>()?,
            connections: load.connections,
            pipeline: load.pipeline,
            value_size: load.value_size,
            mix: load.mix.parse()?,
            batches: load.batches.into_iter().map(Batch::from).collect(),
            key_count: load.key_count,
            keys: load.zipf.map_or(Keys::Uniform, Keys::Zipf),
            rate: load.rate,
            seconds: load.seconds,
            warmup: load.warmup,
            threads: load.threads,
            password: load.password,
            seed: load.seed,
            cpus: load.cpus,
            private_keys: load.private_keys,
            preloaded: load.preloaded,
        })
    }
}

/// Runs one load; raises `OSError` if it cannot begin. Ctrl-C ends it. Calls `connected` when all
/// clients are connected and have sent nothing yet.
///
/// # Errors
/// As [`super::run`]; also what `connected` or a Python signal handler raises.
#[pyfunction]
pub fn run_load<'py>(
    py: Python<'py>,
    config: PyLoad,
    connected: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let told = || connected.call0().map(drop);
    detached(py, config, told, |config, stop, connected| run_until(config, stop, connected))
}

/// Writes a valid value to every key; raises `OSError` if a write failed.
///
/// # Errors
/// As [`super::preload`]; also what a Python signal handler raises.
#[pyfunction]
pub fn preload_keys(py: Python<'_>, config: PyLoad) -> PyResult<Bound<'_, PyDict>> {
    detached(py, config, || Ok(()), |config, stop, _| preload(config, stop))
}

/// News from the working thread.
enum News {
    Connected,
    Done(Box<io::Result<LoadReport>>),
}

type Work = fn(&LoadConfig, &AtomicBool, &dyn Fn()) -> io::Result<LoadReport>;

/// Works on a thread of its own, so that this one can handle signals. The work waits while
/// `connected` runs on this one.
fn detached(
    py: Python<'_>,
    config: PyLoad,
    connected: impl Fn() -> PyResult<()>,
    work: Work,
) -> PyResult<Bound<'_, PyDict>> {
    let config = LoadConfig::try_from(config)?;
    let stop = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        let (news, mut heard) = channel();
        let (go, may_go) = channel();
        let (config, stop) = (&config, &stop);
        scope.spawn(move || {
            let tell = || {
                drop(news.send(News::Connected)); // it is waited for below
                let _ = may_go.recv(); // an error means that the work is over
            };
            drop(news.send(News::Done(Box::new(work(config, stop, &tell)))));
        });
        loop {
            let outcome;
            (heard, outcome) = py.detach(move || {
                let outcome = heard.recv_timeout(SIGNAL_CHECK);
                (heard, outcome)
            });
            match outcome {
                Ok(News::Done(report)) => return Ok((*report)?),
                Ok(News::Connected) => {
                    connected().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                    let _ = go.send(());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("the load generator panicked"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                }
            }
        }
    })?;
    describe(py, &report)
}

fn describe<'py>(py: Python<'py>, report: &LoadReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("commands", report.commands)?;
    dict.set_item("commands_total", report.commands_total)?;
    dict.set_item("seconds", report.seconds)?;
    dict.set_item("busy_seconds", report.busy_seconds)?;
    dict.set_item("throughput", report.throughput())?;
    dict.set_item("p50_us", report.latency_us(0.5))?;
    dict.set_item("p99_us", report.latency_us(0.99))?;
    dict.set_item("p999_us", report.latency_us(0.999))?;
    dict.set_item("max_us", report.latency_us(1.0))?;
    dict.set_item("bytes_in", report.bytes_in)?;
    dict.set_item("bytes_out", report.bytes_out)?;
    dict.set_item("load_cpu_seconds", report.cpu_seconds)?;
    dict.set_item("errors", report.errors())?;
    dict.set_item("ownership_errors", report.count(Fault::Ownership))?;
    dict.set_item("order_errors", report.count(Fault::Order))?;
    dict.set_item("missing_errors", report.count(Fault::Missing))?;
    dict.set_item("protocol_errors", report.count(Fault::Protocol))?;
    dict.set_item("server_errors", report.count(Fault::Server))?;
    dict.set_item("unanswered", report.count(Fault::Unanswered))?;
    dict.set_item("examples", &report.examples)?;
    Ok(dict)
}
