//! The letters of threads, and the doors through which they come.

use crate::base::client_key::ClientKey;
use crate::catalog::channels::{Kind, Refused};
use crate::client::client::Client;
use crate::client::executing::{Commands, Known};
use crate::client::queued::Queued;
use crate::client::session::ClientInfo;
use crate::client::tracking_mode::Mode;
use crate::lane::instance::InstanceState;
use crate::lane::lane::State;
use crate::net::socket::Peer;
use crate::tables::command_stats::Report;
use crate::tables::counters::Stats;
use crate::tables::event_feeds::Said;
use crate::tables::invalidation_feeds::Heard;
use crate::tables::lock::Lock;
use crate::tables::message::Message;
use crate::tables::users::User;
use crate::threads::mailbox::Mailbox;
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// A commit that went wrong, or of which it is not known how far it came.
#[derive(Debug)]
pub struct Unsettled {
    /// Its lock, which is kept until it is settled; none if nothing of it can happen any more, and
    /// only its records are left.
    pub token: Option<u64>,
    /// Its name.
    pub name: Vec<u8>,
    /// The instance that decides.
    pub first: usize,
    /// Those that may have prepared something.
    pub others: Vec<usize>,
    /// Lanes on which something may still be on its way, by instance and name.
    pub lanes: Vec<(usize, Vec<u8>)>,
}

/// Whether clients of this worker may have sent something: the first one also has those to come.
pub(crate) fn is_concerned(index: usize, door: &Door) -> bool {
    index == 0 || door.clients.load(Relaxed) > 0
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
    /// A lock of one of your commits or locked pops holds.
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
