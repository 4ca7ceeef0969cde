//! What CONFIG SET may change while clients are served, and what the coordinator sets by itself.

use crate::tables::output_limits::OutputLimits;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Mutex, PoisonError};

/// No keyspace events.
pub const NO_EVENTS: u8 = 0;

/// Of keys whose time is over, or for which there is no memory: nobody knows when these come.
pub const UNTIMELY: u8 = 1;

/// Also of what commands change.
pub const OF_WRITES: u8 = 2;

/// Also of keys that commands do not find.
pub const OF_READS: u8 = 3;

/// What CONFIG SET may change while clients are served.
#[derive(Debug)]
pub struct Settings {
    /// Without a password, serve only this machine.
    pub protected_mode: AtomicBool,
    /// What may wait for a client that does not read.
    pub output_limits: OutputLimits,
    /// The worker that gets new connections.
    pub newcomers_worker: AtomicUsize,
    /// How many it gets, until the coordinator looks again.
    pub newcomers_room: AtomicUsize,
    /// Clients served at once.
    pub maxclients: AtomicUsize,
    /// Seconds after which an idle client is closed; 0: never.
    pub timeout: AtomicU64,
    /// The instance where a script runs too long; the highest number: nowhere.
    pub busy: AtomicUsize,
    /// What it says to everyone meanwhile.
    pub busy_words: Mutex<String>,
    /// An instance is near its `maxmemory`: the coordinator is asked before a command is queued.
    pub tight: AtomicBool,
    /// Bytes of client buffers of all workers; 0: as many as without it.
    pub client_memory: AtomicUsize,
    /// `client-query-buffer-limit`: bytes of a client that are kept at most.
    pub input_limit: AtomicUsize,
    /// `proto-max-bulk-len`: bytes of one argument. An instance would hang up on a longer one.
    pub argument_limit: AtomicUsize,
    /// Seconds between keep-alive probes; 0: off.
    pub tcp_keepalive: AtomicU64,
    /// SLOWLOG wants everything, also what workers answer.
    pub log_all: AtomicBool,
    /// Microseconds from which on it wants a command; the highest number: none.
    pub log_slow: AtomicU64,
    /// Bytes of a request, and of a reply, from which on COMMANDLOG wants it.
    pub log_requests: AtomicU64,
    /// See `log_requests`.
    pub log_replies: AtomicU64,
    /// Which keyspace events instances tell of.
    pub events: AtomicU8,
    /// What CLIENT PAUSE holds back; see `pause`.
    pub pause: AtomicU8,
}

impl Settings {
    /// Changes a number; false if there is none of that name.
    #[must_use]
    pub fn set(&self, name: &str, value: u64) -> bool {
        let size = usize::try_from(value).unwrap_or(usize::MAX);
        match name {
            "maxclients" => self.maxclients.store(size, Relaxed),
            "timeout" => self.timeout.store(value, Relaxed),
            "tcp-keepalive" => self.tcp_keepalive.store(value, Relaxed),
            "client-memory" => self.client_memory.store(size, Relaxed),
            "client-query-buffer-limit" => self.input_limit.store(size, Relaxed),
            "proto-max-bulk-len" => self.argument_limit.store(size, Relaxed),
            "newcomers-room" => self.newcomers_room.store(size, Relaxed),
            "newcomers-worker" => self.newcomers_worker.store(size, Relaxed),
            "log-slow" => {
                self.log_slow.store(value, Relaxed);
                self.log_all.store(value == 0, Relaxed);
            }
            "log-requests" => self.log_requests.store(value, Relaxed),
            "log-replies" => self.log_replies.store(value, Relaxed),
            "tight" => self.tight.store(value != 0, Relaxed),
            "events" => self.events.store(u8::try_from(value).unwrap_or(OF_READS), Relaxed),
            "protected-mode" => self.protected_mode.store(value != 0, Relaxed),
            _ => return false,
        }
        true
    }

    /// True if a log may want a command that took so many microseconds, whose request and reply have
    /// so many bytes.
    #[must_use]
    pub fn logs(&self, took: u64, request: usize, reply: usize) -> bool {
        took >= self.log_slow.load(Relaxed)
            || request as u64 >= self.log_requests.load(Relaxed)
            || reply as u64 >= self.log_replies.load(Relaxed)
    }

    /// Bytes of a client that are kept at most.
    #[must_use]
    pub fn input_limit(&self) -> usize {
        self.input_limit.load(Relaxed)
    }

    /// Bytes of one argument.
    #[must_use]
    pub fn argument_limit(&self) -> usize {
        self.argument_limit.load(Relaxed)
    }

    /// What those are told who would wait for a script that runs too long: its instance's own words.
    #[must_use]
    pub fn busy_words(&self) -> String {
        self.busy_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says where a script runs too long, and what that instance says.
    pub fn set_busy(&self, instance: Option<usize>, words: &str) {
        words.clone_into(&mut self.busy_words.lock().unwrap_or_else(PoisonError::into_inner));
        self.busy.store(instance.unwrap_or(usize::MAX), Relaxed);
    }

    /// The instance where a script runs too long: it shall answer PING.
    #[must_use]
    pub fn busy(&self) -> Option<usize> {
        Some(self.busy.load(Relaxed)).filter(|&instance| instance != usize::MAX)
    }
}
