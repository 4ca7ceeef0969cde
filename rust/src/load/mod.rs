//! A load generator that checks the replies.
//!
//! ```text
//!   run ── thread 0 ── client 0 ─┐         request.rs  which command, which key, what is owed
//!     │            └── client 2 ─┤ epoll   client.rs   one batch, and what its replies must be
//!     └─── thread 1 ── client 1 ─┘         link.rs     out and in, reply.rs cuts, value.rs judges
//! ```
//!
//! Every value contains its key, its client, and the number of its write ([`value`]). A GET must
//! return a value of its key; with `private_keys`, exactly the one that this client wrote last. So
//! a reply that reaches the wrong client, or the right one out of order, is counted as an error:
//! keys in one pipeline differ, save by chance, and two commands for the same key have
//! interchangeable replies. A SET must return `+OK`.
//!
//! Without a `rate` the loop is closed: a client sends `pipeline` commands in one write, waits for
//! all their replies, and sends the next batch, as `redis-benchmark` does. Latency runs from that
//! write to the time when a reply is cut. With a `rate` the times are fixed beforehand ([`pace`]).

mod client;
mod config;
mod link;
mod pace;
#[cfg(feature = "python")]
pub mod python;
pub mod reply;
mod request;
mod tally;
mod thread;
pub mod value;

use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread as os_thread};

use rustix::thread::{CpuSet, sched_setaffinity};

pub use config::{Address, Batch, Keys, LoadConfig, Mix};
pub use tally::{Fault, LoadReport};

use client::Client;
use link::{Link, connect};
use pace::Pace;
use request::{ANY, Author, Requests};
use thread::LoadThread;
use value::PRELOADER;

const PRELOAD_CLIENTS: usize = 4; // enough to keep a server busy
const PRELOAD_PIPELINE: usize = 64;
const PRELOAD_BATCH: usize = 1024 * 1024; // bytes of values a client sends at once, or one value
const PRELOAD_LIMIT: f64 = 600.0; // seconds; then it gives up

/// Runs one load to its end.
///
/// # Errors
/// If the configuration is invalid, or no connection can be made. Later failures are counted in the
/// report.
pub fn run(config: &LoadConfig) -> io::Result<LoadReport> {
    run_until(config, &AtomicBool::new(false), || ())
}

/// As [`run`], but ends within some 50 ms when `stop` is set. Calls `connected` when all clients
/// are connected and have sent nothing yet.
///
/// # Errors
/// As [`run`].
pub fn run_until(
    config: &LoadConfig,
    stop: &AtomicBool,
    connected: impl FnOnce(),
) -> io::Result<LoadReport> {
    config.check()?;
    spread(config, stop, false, connected)
}

/// Writes a valid value to every key, and checks that each write succeeded.
///
/// # Errors
/// As [`run`]; also if any reply was not `+OK`.
pub fn preload(config: &LoadConfig, stop: &AtomicBool) -> io::Result<LoadReport> {
    let config = LoadConfig {
        connections: PRELOAD_CLIENTS,
        pipeline: (PRELOAD_BATCH / config.value_size.max(1)).clamp(1, PRELOAD_PIPELINE),
        mix: Mix::Set,
        batches: Vec::new(),
        keys: Keys::Uniform,
        rate: None,
        threads: 1,
        seconds: PRELOAD_LIMIT,
        warmup: 0.0,
        private_keys: false,
        ..config.clone()
    };
    config.check()?;
    let report = spread(&config, stop, true, || ())?;
    let whole = report.commands_total == u64::from(config.key_count);
    match report.examples.first() {
        Some(example) => Err(io::Error::other(example.clone())),
        None if whole || stop.load(Ordering::Relaxed) => Ok(report),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Connects all clients, then runs the threads in parallel and adds up their reports.
fn spread(
    config: &LoadConfig,
    stop: &AtomicBool,
    preloads: bool,
    connected: impl FnOnce(),
) -> io::Result<LoadReport> {
    let mut shares: Vec<Vec<Client>> = (0..config.threads).map(|_| Vec::new()).collect();
    for number in 0..config.connections {
        shares[number % config.threads].push(client(config, number, preloads)?);
    }
    connected();
    let mut total = LoadReport::new(config.preloaded);
    os_thread::scope(|scope| {
        let start = |(index, clients)| {
            let run = move || {
                pin(&config.cpus, index)?;
                let seed = config.seed.wrapping_add(index as u64);
                let requests =
                    if preloads { Requests::each(config) } else { Requests::new(config, seed) };
                let pace = Pace::new(config, seed);
                LoadThread::new(clients, requests, pace, config, stop)?.run()
            };
            os_thread::Builder::new().name(format!("load-{index}")).spawn_scoped(scope, run)
        };
        let threads = shares.into_iter().enumerate().map(start).collect::<io::Result<Vec<_>>>()?;
        for thread in threads {
            let panicked = |_| Err(io::Error::other("a load thread panicked"));
            total.add(&thread.join().unwrap_or_else(panicked)?);
        }
        Ok(total)
    })
}

fn client(config: &LoadConfig, number: usize, preloads: bool) -> io::Result<Client> {
    let connected = |node| connect(node, config.password.as_deref()).map(Link::new);
    let links = config.nodes.iter().map(connected).collect::<io::Result<_>>()?;
    let batch = number;
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let share = config.keys_per_client();
    let (first_key, private) = if config.private_keys { (number * share, share) } else { (0, 0) };
    let author = Author {
        client: if preloads { PRELOADER } else { number },
        sequence: 0,
        batch,
        first_key,
        last_writes: vec![ANY; private as usize],
    };
    Ok(Client::new(links, author, config.keys_per_command()))
}

/// Binds the calling thread to its CPU.
fn pin(cpus: &[usize], thread: usize) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let cpu = cpus[thread % cpus.len()];
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cpus: no CPU {cpu}")));
    }
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("cpus: CPU {cpu}: {error}"))
    })
}
