//! The rarely used part of a client: its session, and how CLIENT LIST shows it.

use crate::client::confirmation::Confirmations;
use crate::client::tracking_mode::Mode;
use crate::net::socket::Peer;
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
    /// Between MULTI and EXEC, or while EXEC runs.
    pub in_multi: bool,
    /// Commands are being queued for EXEC.
    pub is_queueing: bool,
    /// The database in which the next queued command will run.
    pub queued_db: u32,
    pub watched: usize,
    pub is_dirty: bool,
    /// See `Shared`.
    pub keeps_queue: bool,
    pub is_monitor: bool,
    pub place: (usize, usize, u32),
    pub is_tracking: bool,
    pub tracks_all: bool,
    pub is_redirect_broken: bool,
    pub is_caching: bool,
    pub redirect: u64,
    /// The newest change of users' rights that its worker knew.
    pub rights: u64,
}

/// What a client has said of itself, and its counters.
#[derive(Debug)]
pub struct Session {
    /// Unique since the proxy started.
    pub id: u64,
    /// The addresses of both ends.
    pub peer: Peer,
    /// The user.
    pub user: Arc<[u8]>,
    /// The coordinator's verdict on the next command.
    pub verdict: Option<Verdict>,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: Vec<u8>,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// The rows of the commands of the transaction that the coordinator runs.
    pub queued_rows: Vec<u32>,
    /// The number of commands of the last EXEC.
    pub block: usize,
    /// The row of that EXEC.
    pub exec_row: usize,
    /// The reply to EXEC, once the coordinator has ended the watch.
    pub exec_refusal: Option<Box<[u8]>>,
    /// MULTI or WATCH was used. Only from then on do newer servers show an empty queue.
    pub has_queue: bool,
    /// CLIENT CAPA REDIRECT.
    pub can_redirect: bool,
    /// The monotonic seconds when it connected.
    pub created: u64,
    /// The monotonic seconds when it last sent something.
    pub last_active: u64,
    /// The commands so far.
    pub commands: u64,
    /// Those of them that wait for EXEC, or were refused before they ran.
    pub not_run: u64,
    /// The bytes read so far.
    pub input_bytes: u64,
    /// The bytes that had been read when all workers last ended a round for it: see `rounds`.
    pub read_by_all: u64,
    /// The same for its last wait for subscribers: see `pending_subscriptions`.
    pub heard_by_all: u64,
    /// The bytes written so far.
    pub output_bytes: u64,
    /// Its cost when it was last weighed: see `balance`.
    pub cost_before: u64,
    /// Its cost between the last two weighings.
    pub lately: u64,
    /// The monotonic seconds since when it has been over its soft limit, if it is.
    pub over_since: Option<u64>,
    /// The bytes of its replies that stay in instances, because the client does not read.
    pub withheld: usize,
    /// Confirmations of SUBSCRIBE while the instances are being subscribed: messages follow them.
    pub confirmations: Confirmations,
    /// Its input is not taken any more, although it may go on sending.
    pub is_cut_off: bool,
    /// MONITOR.
    pub monitor: Monitor,
    /// CLIENT TRACKING.
    pub tracking: Option<Box<Mode>>,
}

impl ClientInfo {
    /// Adds what only the coordinator knows: whether the client's command waits, how many keys are
    /// watched for it, and whether one of them has changed.
    #[must_use]
    pub fn but(&self, is_blocked: bool, watched: usize, is_dirty: bool) -> Self {
        let waits = is_blocked && !self.is_blocked;
        Self {
            is_blocked: is_blocked || self.is_blocked,
            watched,
            is_dirty,
            multi: if is_dirty && self.keeps_queue { Some(0) } else { self.multi },
            // A command that waits has not run yet.
            total_commands: self.total_commands.saturating_sub(u64::from(waits)),
            ..self.clone()
        }
    }
}

impl Session {
    /// EXEC has run this many queued commands.
    pub(crate) fn has_run(&mut self, count: usize) {
        self.not_run = self.not_run.saturating_sub(count as u64);
    }
}

/// A client's state in MONITOR.
#[derive(Debug, Default)]
pub struct Monitor {
    /// It sees every command.
    pub(crate) is_on: bool,
    /// While the coordinator runs its EXEC: lines of the queued commands, and of EXEC.
    pub(crate) unshown: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    /// The commands that its scripts have run, by their places in the transaction.
    pub(crate) of_scripts: Vec<(usize, Vec<u8>)>,
}

/// The coordinator's verdict on the next command.
#[derive(Debug)]
pub enum Verdict {
    /// The command may run.
    Allowed,
    /// The command is refused with this reply.
    Refused(Vec<u8>),
}
