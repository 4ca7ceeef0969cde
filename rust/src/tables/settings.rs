//! What CONFIG SET may change at run time, and what the coordinator sets itself.

use crate::tables::output_limits::OutputLimits;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Mutex, PoisonError};

/// No keyspace events.
pub const NO_EVENTS: u8 = 0;

/// Only events of expired and evicted keys, whose time cannot be predicted.
pub const UNTIMELY: u8 = 1;

/// Also events of changes by commands.
pub const OF_WRITES: u8 = 2;

/// Also events of keys that commands do not find.
pub const OF_READS: u8 = 3;

/// What CONFIG SET may change at run time.
#[derive(Debug)]
pub struct Settings {
    /// Without a password, serve only this machine.
    pub protected_mode: AtomicBool,
    /// The limits for clients that do not read.
    pub output_limits: OutputLimits,
    /// The worker that gets new connections.
    pub newcomers_worker: AtomicUsize,
    /// How many connections it gets until the coordinator checks again.
    pub newcomers_room: AtomicUsize,
    /// The most clients at the same time.
    pub maxclients: AtomicUsize,
    /// The seconds after which an idle client is closed; 0: never.
    pub timeout: AtomicU64,
    /// The instance where a script runs too long; the highest number: none.
    pub busy: AtomicUsize,
    /// The error of that instance meanwhile.
    pub busy_words: Mutex<String>,
    /// An instance is near its `maxmemory`: the coordinator is asked before a command is queued.
    pub tight: AtomicBool,
    /// The most bytes of client buffers of all workers; 0: the default.
    pub client_memory: AtomicUsize,
    /// `client-query-buffer-limit`: the most bytes of a client's input that are kept.
    pub input_limit: AtomicUsize,
    /// `proto-max-bulk-len`: the most bytes of one argument. An instance closes the connection for
    /// a longer one.
    pub argument_limit: AtomicUsize,
    /// The seconds between keep-alive probes; 0: off.
    pub tcp_keepalive: AtomicU64,
    /// SLOWLOG logs every command, even those that workers answer themselves.
    pub log_all: AtomicBool,
    /// The least microseconds of a command that is logged; the highest number: none.
    pub log_slow: AtomicU64,
    /// The least bytes of a request, and of a reply, that COMMANDLOG logs.
    pub log_requests: AtomicU64,
    /// See `log_requests`.
    pub log_replies: AtomicU64,
    /// The keyspace events that instances publish.
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

    /// True if a log may want a command with this duration in microseconds, and these bytes of
    /// request and reply.
    #[must_use]
    pub fn logs(&self, took: u64, request: usize, reply: usize) -> bool {
        took >= self.log_slow.load(Relaxed)
            || request as u64 >= self.log_requests.load(Relaxed)
            || reply as u64 >= self.log_replies.load(Relaxed)
    }

    /// The most bytes of a client's input that are kept.
    #[must_use]
    pub fn input_limit(&self) -> usize {
        self.input_limit.load(Relaxed)
    }

    /// The most bytes of one argument.
    #[must_use]
    pub fn argument_limit(&self) -> usize {
        self.argument_limit.load(Relaxed)
    }

    /// The error for clients that would wait for a script that runs too long, as its instance words
    /// it.
    #[must_use]
    pub fn busy_words(&self) -> String {
        self.busy_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the instance where a script runs too long, and that instance's error.
    pub fn set_busy(&self, instance: Option<usize>, words: &str) {
        words.clone_into(&mut self.busy_words.lock().unwrap_or_else(PoisonError::into_inner));
        self.busy.store(instance.unwrap_or(usize::MAX), Relaxed);
    }

    /// The instance where a script runs too long; clients' PINGs are routed to it.
    #[must_use]
    pub fn busy(&self) -> Option<usize> {
        Some(self.busy.load(Relaxed)).filter(|&instance| instance != usize::MAX)
    }
}
