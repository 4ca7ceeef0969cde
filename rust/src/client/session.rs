//! The part of a client that few commands touch: its session, and how CLIENT LIST shows it.

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
    /// Between MULTI and EXEC, or EXEC runs.
    pub in_multi: bool,
    /// Commands that wait for EXEC.
    pub is_queueing: bool,
    /// The database in which the next of them will run.
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
    /// How many commands the last EXEC was to run.
    pub block: usize,
    /// The row of that EXEC.
    pub exec_row: usize,
    /// What EXEC is told, once the coordinator has ended the watch.
    pub exec_refusal: Option<Box<[u8]>>,
    /// MULTI or WATCH was used: newer servers show that nothing is queued only from then on.
    pub has_queue: bool,
    /// CLIENT CAPA REDIRECT.
    pub can_redirect: bool,
    /// Monotonic seconds when it came.
    pub created: u64,
    /// Monotonic seconds when it last sent something.
    pub last_active: u64,
    /// Commands so far.
    pub commands: u64,
    /// How many of them wait for EXEC, or were refused before they ran.
    pub not_run: u64,
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
    /// Of SUBSCRIBE, while the instances are being subscribed: messages come behind them.
    pub confirmations: Confirmations,
    /// It may go on sending what nobody takes.
    pub is_cut_off: bool,
    /// MONITOR.
    pub monitor: Monitor,
    /// CLIENT TRACKING.
    pub tracking: Option<Box<Mode>>,
}

impl ClientInfo {
    /// With what only the coordinator knows: whether its command waits, how many keys it watches,
    /// and whether one of them has changed.
    #[must_use]
    pub fn but(&self, is_blocked: bool, watched: usize, is_dirty: bool) -> Self {
        let waits = is_blocked && !self.is_blocked;
        Self {
            is_blocked: is_blocked || self.is_blocked,
            watched,
            is_dirty,
            multi: if is_dirty && self.keeps_queue { Some(0) } else { self.multi },
            // What waits has not run yet.
            total_commands: self.total_commands.saturating_sub(u64::from(waits)),
            ..self.clone()
        }
    }
}

impl Session {
    /// EXEC has run so many commands that waited for it.
    pub(crate) fn has_run(&mut self, count: usize) {
        self.not_run = self.not_run.saturating_sub(count as u64);
    }
}

/// A client's part in it.
#[derive(Debug, Default)]
pub struct Monitor {
    /// It sees every command.
    pub(crate) is_on: bool,
    /// Its EXEC runs at the coordinator: lines of the queued commands, and of EXEC.
    pub(crate) unshown: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    /// What its scripts have run, by their places in it.
    pub(crate) of_scripts: Vec<(usize, Vec<u8>)>,
}

/// What the coordinator says of the command that comes next.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// This is its reply.
    Refused(Vec<u8>),
}
