//! The counters: per thread while a load runs, then added up into the report.

use hdrhistogram::Histogram;

use super::request::Expected;
use super::value::{PRELOADER, Stamp};

const EXAMPLES: usize = 5; // of faults, as text; more are only counted
const LATENCY_FLOOR: u64 = 100; // ns
const LATENCY_CEILING: u64 = 600_000_000_000; // ns
const LATENCY_DIGITS: u8 = 3;

/// The faults of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value of another key, of another client's private key, or none of this generator's at all.
    Ownership,
    /// The reply to another command of the same client's pipeline, or an older write than its last.
    Order,
    /// Nil for a key that was loaded.
    Missing,
    /// Not RESP, a reply of the wrong type, an unexpected reply, a closed connection.
    Protocol,
    /// `-ERR` and the like.
    Server,
    /// No reply by the end, nor for some seconds after it.
    Unanswered,
}

/// The number of kinds of [`Fault`].
const FAULTS: usize = Fault::Unanswered as usize + 1;

/// The results of a load.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The replies within `seconds`.
    pub commands: u64,
    /// All replies, including those of the warm-up and of the end.
    pub commands_total: u64,
    /// The seconds in which replies were counted.
    pub seconds: f64,
    /// The seconds from the first command to the last reply, including the warm-up and the end.
    pub busy_seconds: f64,
    /// All bytes received.
    pub bytes_in: u64,
    /// All bytes sent.
    pub bytes_out: u64,
    /// All CPU seconds of the load threads.
    pub cpu_seconds: f64,
    /// The first few faults.
    pub examples: Vec<String>,
    /// Every key was loaded.
    pub(super) nil_is_fault: bool,
    faults: [u64; FAULTS],
    latency: Histogram<u64>, // ns, from writing a command to cutting its reply
}

impl LoadReport {
    pub(super) fn new(nil_is_fault: bool) -> Self {
        Self {
            nil_is_fault,
            commands: 0,
            commands_total: 0,
            seconds: 0.0,
            busy_seconds: 0.0,
            bytes_in: 0,
            bytes_out: 0,
            cpu_seconds: 0.0,
            examples: Vec::new(),
            faults: [0; FAULTS],
            latency: Histogram::new_with_bounds(LATENCY_FLOOR, LATENCY_CEILING, LATENCY_DIGITS)
                .expect("the bounds are constants, valid ones"),
        }
    }

    /// Replies per second.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // 2^53 commands take centuries
    pub fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.commands as f64 / self.seconds } else { 0.0 }
    }

    /// The number of faults of this kind.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// The number of faults of all kinds.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// The latency in µs that this share of commands (0.99: all but 1 %) did not exceed.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // nanoseconds
    pub fn latency_us(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1000.0
    }

    /// Counts `commands` replies with a latency of `latency` ns, within the measured time or not.
    #[inline]
    pub(super) fn settle(&mut self, commands: u64, latency: u64, measured: bool) {
        self.commands_total += commands;
        if measured {
            self.commands += commands;
            self.latency.saturating_record_n(latency, commands);
        }
    }

    #[cold]
    pub(super) fn fault(&mut self, fault: Fault, times: u64, client: u32, text: &str) {
        self.faults[fault as usize] += times;
        if times > 0 && self.examples.len() < EXAMPLES {
            let who = match client {
                PRELOADER => "preloading".to_owned(),
                number => format!("client {number}"),
            };
            self.examples.push(format!("{fault:?}, {who}: {text}"));
        }
    }

    /// Counts a value that does not fit `asked`, and checks if another command of this pipeline
    /// asked for it.
    #[cold]
    pub(super) fn wrong_value(
        &mut self,
        client: u32,
        asked: Expected,
        stamp: Option<Stamp>,
        value: &[u8],
        pipeline: &[Expected],
    ) {
        let key = asked.key;
        let Some(stamp) = stamp else {
            let head = value[..value.len().min(48)].escape_ascii();
            let text = format!("asked for key {key}, got no value of ours: {head}");
            return self.fault(Fault::Ownership, 1, client, &text);
        };
        let own = stamp.key == key && stamp.client == client;
        let sibling = stamp.key != key && pipeline.iter().any(|other| other.key == stamp.key);
        let fault = if own || sibling { Fault::Order } else { Fault::Ownership };
        let text = format!("asked for key {key}, write {}, got {stamp}", asked.sequence);
        self.fault(fault, 1, client, &text);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.commands_total += other.commands_total;
        self.seconds = self.seconds.max(other.seconds);
        self.busy_seconds = self.busy_seconds.max(other.busy_seconds);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.cpu_seconds += other.cpu_seconds;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
        for (mine, theirs) in self.faults.iter_mut().zip(other.faults) {
            *mine += theirs;
        }
        self.latency.add(&other.latency).expect("both have the same bounds");
    }
}
