//! What every worker and the coordinator share: fixed facts, a few settings, and mailboxes.
//!
//! Nothing here is touched for an ordinary command, except facts that never change.

use crate::channels::{Kind, Refused};
use crate::client::Client;
use crate::client_info::ClientInfo;
use crate::client_key::ClientKey;
use crate::command::{Row, Table};
use crate::commit::Unsettled;
use crate::denials::Denials;
use crate::ears::{Ears, Heard};
use crate::executing::{Commands, Known};
use crate::finished::Finished;
use crate::inline::Dialect;
use crate::instance::InstanceState;
use crate::lane::State;
use crate::lock::Lock;
use crate::lock_table::LockTable;
use crate::mailbox::Mailbox;
use crate::net::Peer;
use crate::placement::Placement;
use crate::queued::Queued;
use crate::rounds::Rounds;
use crate::scripts::Scripts;
use crate::settings::Settings;
use crate::slow_log::SlowLog;
use crate::stats::Stats;
use crate::subscriptions::{Message, Registry};
use crate::tally::Report;
use crate::tracking::Mode;
use crate::tracking_table::Tracking;
use crate::upstreams::{Said, Upstreams};
use crate::users::{User, Users};
use crate::waited::Waited;
use rustix::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

/// `maxmemory-clients` counts as at least that many bytes, or nobody could set another value.
const CLIENT_MEMORY_LEAST: usize = 128 * 1024;

/// Facts that hold as long as the proxy runs, and the doors between its threads.
#[derive(Debug)]
pub struct Shared {
    /// All commands.
    pub table: Table,
    /// Key → instance.
    pub placement: Arc<Placement>,
    /// How many instances.
    pub instances: usize,
    /// What lanes authenticate with.
    pub instance_password: Vec<u8>,
    /// Databases a client may select.
    pub databases: u32,
    /// The reply of HELLO in
    /// RESP2 and RESP3, before and after the client's id.
    pub hello: [(Vec<u8>, Vec<u8>); 2],
    /// Bytes of client buffers a worker may hold before it closes the greediest client, unless
    /// `maxmemory-clients` says less.
    pub client_memory: usize,
    /// What a client pushes to itself comes behind the reply, as in newer servers.
    pub pushes_follow_replies: bool,
    /// UNSUBSCRIBE without subscriptions is an error, as in newer servers.
    pub unsubscribing_needs_subscription: bool,
    /// Who is not authenticated is not told which commands there are, as in newer servers.
    pub asks_who_first: bool,
    /// What waits for EXEC is forgotten once that must fail; and CLIENT LIST shows multi=0, not -1,
    /// of who has used MULTI or WATCH before.
    pub keeps_queue: bool,
    /// At maxmemory instances queue nothing, not even what frees memory.
    pub queues_nothing_when_full: bool,
    /// The instances are Valkey servers.
    pub is_valkey: bool,
    /// Whose inline lines are taken.
    pub dialect: Dialect,
    /// In a pipeline, a write waits for earlier writes on other instances.
    pub ordered_pipelines: bool,
    /// Who is subscribed to what.
    pub registry: Registry,
    /// Who waits until all have read their clients.
    pub rounds: Rounds,
    /// What instances publish.
    pub upstreams: Upstreams,
    /// Instances say here which keys have changed.
    pub ears: Ears,
    /// Who is told of changed keys.
    pub tracking: Tracking,
    /// For which keys clients wait.
    pub waited: Waited,
    /// Who holds which keys.
    pub lock_table: LockTable,
    /// Commits of workers, for whoever looks at their records.
    pub finished: Finished,
    /// What SLOWLOG shall show besides what instances have run.
    pub slow_log: SlowLog,
    /// For ACL LOG.
    pub denials: Denials,
    /// What is known of scripts.
    pub scripts: Scripts,
    /// Clients in MONITOR, of all workers.
    pub monitors: AtomicUsize,
    /// Who clients may be.
    pub users: Users,
    /// What CONFIG SET may change.
    pub settings: Settings,
    /// The next client's id is one more.
    pub last_client_id: AtomicU64,
    /// Clients of all workers.
    pub connected: AtomicUsize,
    /// Held while a client moves from one worker to another, and while a letter about any client
    /// is posted to all: so that each client is seen by one of them.
    pub moves: Mutex<()>,
    /// One door a worker.
    pub doors: Vec<Door>,
    /// To the coordinator.
    pub coordinator: Mailbox<ToCoordinator>,
}

impl Shared {
    /// Bytes of client buffers a worker may hold.
    pub fn client_memory(&self) -> usize {
        match self.settings.client_memory.load(Relaxed) {
            0 => self.client_memory,
            limit => self.client_memory.min((limit / self.doors.len()).max(CLIENT_MEMORY_LEAST)),
        }
    }

    /// Posts a letter about any client to every worker.
    pub fn post_to_all(&self, letter: impl Fn() -> Mail) {
        let _alone = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        for door in &self.doors {
            door.mailbox.post(letter());
        }
    }

    /// Whether an instance may refuse to queue this command: for want of memory, or because a
    /// script runs too long.
    #[must_use]
    pub fn may_refuse(&self, row: &Row) -> bool {
        self.may_lack_memory(row) || self.settings.busy().is_some()
    }

    /// The same, for want of memory.
    #[must_use]
    pub fn may_lack_memory(&self, row: &Row) -> bool {
        let may_need_memory = row.may_need_memory || self.queues_nothing_when_full;
        may_need_memory && self.settings.tight.load(Relaxed)
    }
}

/// How others reach a worker.
#[derive(Debug)]
pub struct Door {
    /// Letters to it.
    pub mailbox: Mailbox<Mail>,
    /// Messages for its clients.
    pub messages: Mailbox<Message>,
    /// Its counters.
    pub stats: Stats,
    /// Changes of users' rights that it knows of.
    pub rights_seen: AtomicU64,
    /// Clients it has, or will have once it reads its mail.
    pub clients: AtomicUsize,
}

impl Door {
    /// A worker without clients.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            mailbox: Mailbox::new()?,
            messages: Mailbox::new()?,
            stats: Stats::default(),
            rights_seen: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
        })
    }
}

/// A letter to a worker.
#[derive(Debug)]
pub enum Mail {
    /// An accepted connection, now yours.
    Accepted(OwnedFd, Peer),
    /// A client of another worker, now yours, and the state of its lanes.
    Moved(Box<Client>, State),
    /// Give clients with so many thousandths of your load to another worker.
    Give {
        /// Whom.
        to: usize,
        /// How many.
        permille: u64,
    },
    /// The coordinator's answer to a client, and what it changes of its session.
    Reply(ClientKey, Vec<u8>, Change),
    /// What scripts of a transaction have run, by their places, for MONITOR; its reply comes next.
    ScriptLines(ClientKey, Vec<(usize, Vec<u8>)>),
    /// Answer EXEC: run these commands of the client as if they came now, under this lock; but
    /// answer those that have run with what is known. Whether CLIENT CACHING holds for them.
    Run(ClientKey, Commands, usize, (Known, u64), u64, bool),
    /// May the client's next command run? If not, the reply; and who the client is from now on.
    Verdict(ClientKey, Option<Vec<u8>>, Option<User>),
    /// What a user may do has changed; or there is none of that name.
    User(Arc<[u8]>, Option<u32>),
    /// Nobody needs to say who he is any more.
    OpenToAll,
    /// Keys that your clients must wait for.
    Lock(Arc<Lock>),
    /// They need not wait any more.
    Unlock(u64),
    /// Nor for those of a lock that holds: a command with such a key is refused.
    Doubt(Arc<Lock>),
    /// A lock of one of your commits or looks holds.
    Locked(u64),
    /// A script runs too long, or does no more: who waits for a lock asks again.
    Busy,
    /// An instance changed.
    Instance(usize, InstanceState),
    /// Describe your clients to the coordinator, or those with these ids, which are in order; the
    /// number is its own.
    ListClients(u64, Option<Arc<[u64]>>),
    /// Report your tally to the coordinator, and maybe begin a new one; the number is its own.
    Tally(u64, bool),
    /// Who waits for the end of a CLIENT PAUSE tries again.
    EndPause,
    /// Close the clients with these ids; if `true`, after what they are owed.
    Kill(Vec<u64>, bool),
    /// Close the clients of a user that listen where it may not: it may where these match.
    Confine {
        /// Whose.
        user: Vec<u8>,
        /// As in `&pattern`.
        channels: Vec<Vec<u8>>,
    },
    /// The instances are subscribed to what a client has named, or will not be for long: now tell the
    /// client, and hand the ticket back.
    Subscribe {
        /// Who asked.
        key: ClientKey,
        /// Which of its replies waits.
        sequence: u32,
        /// The coordinator's own number.
        ticket: u64,
        /// The names that it is not subscribed to, because a script runs too long.
        refused: Option<Refused>,
    },
    /// How a client tracks, or that it does not.
    Track(ClientKey, Option<Box<Mode>>),
    /// Tell a client that tracks, or whom it named instead, of changed keys.
    Invalidate {
        /// Who tracks.
        origin: ClientKey,
        /// Whom it named.
        target: Option<ClientKey>,
        /// The keys, in an array; `None`: any may have changed.
        body: Option<Arc<[u8]>>,
    },
    /// Whom this client named is gone.
    BrokenRedirect(ClientKey),
    /// For your monitors.
    Lines(Arc<[u8]>),
    /// Someone has asked for a round, yours is over, or subscriptions have reached the instances.
    Round,
    /// Serve what runs, then end; milliseconds of grace.
    Stop(u64),
}

/// A letter to the coordinator.
#[derive(Debug)]
pub enum ToCoordinator {
    /// Run this command; answer with `Mail::Reply`.
    Command {
        /// Who asked.
        key: ClientKey,
        /// Its session.
        info: Box<ClientInfo>,
        /// The command.
        args: Vec<Vec<u8>>,
        /// EXEC: what was queued; `None` if that was refused.
        queued: Option<Queued>,
        /// The lock under which it runs, inside EXEC.
        token: Option<u64>,
        /// May it run? Answer with `Mail::Verdict`.
        is_question: bool,
    },
    /// A client has run what `Mail::Run` brought.
    Ran(ClientKey),
    /// A client whose command the coordinator runs has ended its side.
    HungUp(ClientKey),
    /// A client that the coordinator knows is gone.
    Gone(ClientKey),
    /// A lock holds: nothing is in flight that could miss it.
    Locked {
        /// The lock.
        token: u64,
    },
    /// A commit of a worker went wrong, or it is not known how far it came: settle it.
    Unsettled(Unsettled),
    /// Records of finished commits wait to be deleted.
    Finished,
    /// Commands that workers have answered by themselves wait in `slow_log`.
    Logged,
    /// For the log: a client was closed, because more would have had to be kept of it than may be.
    SentTooMuch(Box<ClientInfo>),
    /// A script that a worker ran has touched what it may not.
    Strayed {
        /// Whose it is; answer with `Mail::Reply`.
        key: ClientKey,
        /// As it is known.
        script: Vec<u8>,
        /// As whom it ran.
        guard: Vec<u8>,
        /// What ACL LOG says.
        log: Vec<u8>,
    },
    /// A script that a worker runs takes too long; or it has ended.
    Overdue {
        /// Where.
        instance: usize,
        /// It still runs.
        is_so: bool,
    },
    /// An instance has said something besides names of keys.
    Heard {
        /// Which one.
        instance: usize,
        /// What.
        heard: Heard,
    },
    /// What an instance has said on the connection on which it publishes.
    Upstream {
        /// Which one.
        instance: usize,
        /// What.
        said: Said,
    },
    /// A worker's answer to `Mail::ListClients`.
    Clients {
        /// The number in the question.
        request: u64,
        /// Its clients.
        clients: Vec<ClientInfo>,
    },
    /// A worker's answer to `Mail::Tally`.
    Tally {
        /// The number in the question.
        request: u64,
        /// What it has counted.
        report: Report,
    },
    /// Subscribe the instances to these names; answer with `Mail::Subscribe`.
    Subscribe {
        /// Who asked.
        key: ClientKey,
        /// Which of its replies waits.
        sequence: u32,
        /// What the names are.
        kind: Kind,
        /// As the client gave them.
        names: Vec<Vec<u8>>,
    },
    /// A `Mail::Subscribe` was done.
    Subscribed(u64),
    /// Names have their first subscriber, or none any more.
    Interest {
        /// What the names are.
        kind: Kind,
        /// The names.
        names: Vec<Vec<u8>>,
        /// Someone is subscribed.
        is_wanted: bool,
    },
    /// This worker's thread has ended.
    Stopped(usize),
}

/// What the coordinator's answer changes of a client's session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// The database, as after SELECT.
    pub db: Option<u32>,
    /// Whether keys are watched for it.
    pub watching: Option<bool>,
    /// It sees every command from now on.
    pub monitoring: bool,
}
