//! A client's session, and what CLIENT LIST shows of it; Python writes that in the server's words.

use crate::monitor::Monitor;
use crate::net::Peer;
use crate::tracking::Mode;
use crate::users::Verdict;
use std::sync::Arc;

/// One client as CLIENT LIST shows it.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "python", pyo3::pyclass(frozen, get_all))]
#[allow(missing_docs, reason = "each is the field of that name in CLIENT LIST")]
pub struct ClientInfo {
    pub id: u64,
    pub address: String,
    pub local_address: String,
    pub fd: i32,
    pub name: Vec<u8>,
    pub user: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_version: Vec<u8>,
    pub age: u64,
    pub idle: u64,
    pub is_unix: bool,
    pub is_closing: bool,
    pub no_evict: bool,
    pub no_touch: bool,
    pub is_blocked: bool,
    pub can_redirect: bool,
    pub db: u32,
    pub resp: u8,
    pub query_bytes: usize,
    pub output_bytes: usize,
    pub output_replies: usize,
    pub wants_write: bool,
    pub command: String,
    pub total_input: u64,
    pub total_output: u64,
    pub total_commands: u64,
    pub sub: usize,
    pub psub: usize,
    pub ssub: usize,
    pub multi: Option<usize>,
    pub is_monitor: bool,
    pub place: (usize, usize, u32),
    pub is_tracking: bool,
    pub tracks_all: bool,
    pub is_redirect_broken: bool,
    pub is_caching: bool,
    pub redirect: u64,
    /// How many changes of users' rights its worker knew of.
    pub rights: u64,
}

/// What a client said about itself, and what we count of it.
#[derive(Debug)]
pub struct Session {
    /// Unique since the proxy started.
    pub id: u64,
    /// Both ends.
    pub peer: Peer,
    /// Who it is.
    pub user: Arc<[u8]>,
    /// What the coordinator said of the next command.
    pub verdict: Option<Verdict>,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: Vec<u8>,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// Rows of the commands of the transaction that the coordinator has.
    pub queued_rows: Vec<u32>,
    /// CLIENT CAPA REDIRECT.
    pub can_redirect: bool,
    /// Monotonic seconds when it came.
    pub created: u64,
    /// Monotonic seconds when it last sent something.
    pub last_active: u64,
    /// Commands so far.
    pub commands: u64,
    /// Bytes read so far.
    pub input_bytes: u64,
    /// How many bytes had been read when all workers last ended a round for it: see `rounds`.
    pub read_by_all: u64,
    /// The same when it last waited for listeners: see `pending_subscriptions`.
    pub heard_by_all: u64,
    /// Bytes written so far.
    pub output_bytes: u64,
    /// What it had cost when it was last weighed: see `balance`.
    pub cost_before: u64,
    /// What it cost between the last two weighings.
    pub lately: u64,
    /// Monotonic seconds when it went over its soft limit, if it is.
    pub over_since: Option<u64>,
    /// Bytes of its replies that are left in instances, because it does not read.
    pub withheld: usize,
    /// Of SUBSCRIBE, while the instances are being subscribed: messages come behind it.
    pub confirmation: Vec<u8>,
    /// It may go on sending what nobody takes.
    pub is_cut_off: bool,
    /// MONITOR.
    pub monitor: Monitor,
    /// CLIENT TRACKING.
    pub tracking: Option<Box<Mode>>,
}
