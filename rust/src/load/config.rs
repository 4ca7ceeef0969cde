//! What to send, where, for how long. The defaults are in Python (`threadis.bench.load`).

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::HEADER;

const VALUE_LIMIT: usize = 64 * 1024 * 1024; // bytes; a mistyped size must not fill the memory
const NODES_LIMIT: usize = 256;
const BATCH_LIMIT: usize = 1 << 20; // keys owed to one client at once

/// The address of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = io::Error;

    /// A text with a slash is a path; one that ends in `:port` is TCP.
    fn from_str(text: &str) -> io::Result<Self> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.map(|_| Self::Tcp(text.to_owned()))
            .ok_or_else(|| invalid(format!("address: '{text}' is neither host:port nor a path")))
    }
}

/// The commands to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// Only GET.
    Get,
    /// Only SET.
    Set,
    /// SET with the given probability, GET otherwise.
    Mixed {
        /// 0.0 to 1.0
        set_ratio: f64,
    },
    /// Only MSET.
    Mset {
        /// Keys per command.
        keys: usize,
    },
    /// Only MGET.
    Mget {
        /// Keys per command.
        keys: usize,
    },
}

impl FromStr for Mix {
    type Err = io::Error;

    /// `get`, `set`, `mixed:0.1` (one in ten is a SET), `mget:10` and `mset:10` (ten keys a
    /// command).
    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || {
            invalid(format!("mix: '{text}' is not get, set, mixed:RATIO, mget:KEYS or mset:KEYS"))
        };
        match text.split_once(':') {
            None if text == "get" => Ok(Self::Get),
            None if text == "set" => Ok(Self::Set),
            Some(("mixed", ratio)) => {
                Ok(Self::Mixed { set_ratio: ratio.parse().map_err(|_| wrong())? })
            }
            Some(("mset", keys)) => Ok(Self::Mset { keys: keys.parse().map_err(|_| wrong())? }),
            Some(("mget", keys)) => Ok(Self::Mget { keys: keys.parse().map_err(|_| wrong())? }),
            _ => Err(wrong()),
        }
    }
}

/// Commands that are sent in one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commands.
    pub request: Vec<u8>,
    /// The number of their replies.
    pub replies: usize,
}

impl From<(Vec<u8>, usize)> for Batch {
    fn from((request, replies): (Vec<u8>, usize)) -> Self {
        Self { request, replies }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// All keys with the same probability.
    Uniform,
    /// Key `k` in proportion to `1 / (k + 1)^exponent`.
    Zipf(f64),
}

/// One load.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The target: one server, or the nodes of a cluster, which own equal shares of the slots in
    /// order.
    pub nodes: Vec<Address>,
    /// The number of clients, spread evenly over the threads.
    pub connections: usize,
    /// The commands that a client sends at once; it waits for all their replies before it sends
    /// more.
    pub pipeline: usize,
    /// The size of a value in bytes, at least 16 ([`value`](super::value) tells why).
    pub value_size: usize,
    /// The commands to send.
    pub mix: Mix,
    /// Prepared commands instead: client `n` of `c` sends those with the numbers n, n + c, n + 2c
    /// …, and then starts again. Their replies are only checked for errors.
    pub batches: Vec<Batch>,
    /// The number of keys.
    pub key_count: u32,
    /// How keys are chosen.
    pub keys: Keys,
    /// Commands per second over all clients, at times that do not depend on replies; `None`: a
    /// client sends as soon as it has its replies.
    pub rate: Option<f64>,
    /// The seconds in which replies are counted.
    pub seconds: f64,
    /// The seconds of load before that.
    pub warmup: f64,
    /// The number of load threads.
    pub threads: usize,
    /// For AUTH, sent once per connection.
    pub password: Option<String>,
    /// Equal seeds choose equal keys.
    pub seed: u64,
    /// Thread `i` runs on `cpus[i % len]`; empty: on any CPU.
    pub cpus: Vec<usize>,
    /// Gives each client its own share of the keys, so it must read exactly what it last wrote.
    pub private_keys: bool,
    /// Every key has a value, so a nil is an error.
    pub preloaded: bool,
}

impl LoadConfig {
    /// The number of keys that a client chooses from.
    pub(super) fn keys_per_client(&self) -> u32 {
        let clients = u32::try_from(self.connections).unwrap_or(u32::MAX);
        if self.private_keys { self.key_count / clients } else { self.key_count }
    }

    /// The number of keys of one command.
    pub(super) fn keys_per_command(&self) -> usize {
        if !self.batches.is_empty() {
            return 1;
        }
        if let Mix::Mget { keys } | Mix::Mset { keys } = self.mix { keys } else { 1 }
    }

    /// Refuses an invalid configuration, with the name of the field and the fix.
    pub(super) fn check(&self) -> io::Result<()> {
        let batch = self.pipeline.saturating_mul(self.keys_per_command());
        let bytes = batch.saturating_mul(self.value_size);
        let faults = [
            (!(1..=NODES_LIMIT).contains(&self.nodes.len()), "address: 1 to 256 nodes"),
            (
                self.nodes.len() > 1 && (self.keys_per_command() > 1 || !self.batches.is_empty()),
                "mix: a command on many keys, or a prepared one, has no one node of a cluster",
            ),
            (self.batches.iter().any(|batch| batch.replies == 0), "batches: each has a reply"),
            (self.connections == 0, "connections: at least 1"),
            (self.connections > 1_000_000, "connections: at most 1000000"),
            (self.threads == 0 || self.threads > self.connections, "threads: 1 to connections"),
            (batch == 0, "pipeline and keys of mget: at least 1"),
            (batch > BATCH_LIMIT, "pipeline times keys of mget: at most 1048576"),
            (self.value_size < HEADER, "value_size: at least 16, for the check of ownership"),
            (self.value_size > VALUE_LIMIT, "value_size: at most 64 MB"),
            (bytes > 16 * VALUE_LIMIT, "pipeline times value_size: at most 1 GB a connection"),
            (self.keys_per_client() == 0, "key_count: at least 1; with private_keys, 1 a client"),
            (
                self.rate.is_some_and(|rate| !(1.0..=1e9).contains(&rate)),
                "rate: 1 to 1000000000 commands a second",
            ),
            (!(0.0..=86_400.0).contains(&self.seconds), "seconds: 0 to 86400"),
            (!(0.0..=86_400.0).contains(&self.warmup), "warmup: 0 to 86400 seconds"),
            (
                matches!(self.mix, Mix::Mixed { set_ratio } if !(0.0..=1.0).contains(&set_ratio)),
                "mix: the ratio of SET is 0 to 1",
            ),
            (
                matches!(self.keys, Keys::Zipf(exponent) if !(0.0..=10.0).contains(&exponent)),
                "zipf: the exponent is 0 to 10",
            ),
        ];
        match faults.iter().find(|(wrong, _)| *wrong) {
            Some((_, fix)) => Err(invalid((*fix).to_owned())),
            None => Ok(()),
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_wrong_ones_named() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        assert_eq!(address("::1:6379"), Address::Tcp("::1:6379".into()));
        assert_eq!(address("/tmp/a.sock"), Address::Unix("/tmp/a.sock".into()));
        assert!("localhost".parse::<Address>().is_err());
        let mix = |text: &str| text.parse::<Mix>().ok();
        assert_eq!(mix("mixed:0.1"), Some(Mix::Mixed { set_ratio: 0.1 }));
        assert_eq!(mix("mget:10"), Some(Mix::Mget { keys: 10 }));
        assert_eq!((mix("mget"), mix("get:1"), mix("del")), (None, None, None));
    }
}
