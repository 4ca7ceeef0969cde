//! The one configuration that goes in.

use super::placement::PyPlacement;
use super::rows::CommandRow;
use pyo3::prelude::*;

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
    pub(super) timeout: u64,
    pub(super) tcp_keepalive: u64,
    pub(super) pushes_follow_replies: bool,
    pub(super) unsubscribing_needs_subscription: bool,
    pub(super) ordered_pipelines: bool,
    pub(super) hello2: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) hello3: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) commands: Vec<CommandRow>,
}
