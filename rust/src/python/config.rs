//! The one configuration that goes in.

use super::placement::PyPlacement;
use super::rows::CommandRow;
use crate::tables::output_limits::OutputLimits;
use crate::tables::settings::{NO_EVENTS, Settings};
use pyo3::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

/// What `threadis.proxy` hands over; see `_core.pyi`.
#[derive(FromPyObject)]
pub(super) struct Config {
    pub(super) listeners: Vec<(i32, String, bool)>,
    pub(super) backlog: i32,
    pub(super) workers: Vec<(Vec<usize>, bool)>,
    pub(super) placement: Py<PyPlacement>,
    pub(super) instance_count: usize,
    pub(super) instance_password: Vec<u8>,
    pub(super) databases: u32,
    pub(super) client_memory: usize,
    pub(super) protected_mode: bool,
    pub(super) maxclients: usize,
    pub(super) input_limit: usize,
    pub(super) argument_limit: usize,
    pub(super) timeout: u64,
    pub(super) tcp_keepalive: u64,
    pub(super) pushes_follow_replies: bool,
    pub(super) unsubscribing_needs_subscription: bool,
    pub(super) queues_nothing_when_full: bool,
    pub(super) asks_who_first: bool,
    pub(super) keeps_queue: bool,
    pub(super) is_valkey: bool,
    pub(super) ordered_pipelines: bool,
    pub(super) hello2: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) hello3: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) commands: Vec<CommandRow>,
}

impl Config {
    /// What CONFIG SET may change, as it is in the beginning.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            output_limits: OutputLimits::default(),
            protected_mode: AtomicBool::new(self.protected_mode),
            newcomers_worker: AtomicUsize::new(0),
            newcomers_room: AtomicUsize::new(0),
            maxclients: AtomicUsize::new(self.maxclients),
            busy: AtomicUsize::new(usize::MAX),
            busy_words: Mutex::default(),
            tight: AtomicBool::new(false),
            timeout: AtomicU64::new(self.timeout),
            tcp_keepalive: AtomicU64::new(self.tcp_keepalive),
            log_all: AtomicBool::new(false),
            log_slow: AtomicU64::new(u64::MAX),
            log_requests: AtomicU64::new(u64::MAX),
            log_replies: AtomicU64::new(u64::MAX),
            events: AtomicU8::new(NO_EVENTS),
            client_memory: AtomicUsize::new(0),
            input_limit: AtomicUsize::new(self.input_limit),
            argument_limit: AtomicUsize::new(self.argument_limit),
            pause: AtomicU8::new(0),
        }
    }
}
