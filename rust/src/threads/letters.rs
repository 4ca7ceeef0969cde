//! The messages (letters) between threads, and the doors through which they arrive.

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

/// A commit that failed, or whose outcome is unknown.
#[derive(Debug)]
pub struct Unsettled {
    /// Its lock, which is held until the commit is resolved. `None` if no part of it can run any
    /// more and only its records are left to delete.
    pub token: Option<u64>,
    /// The commit's name.
    pub name: Vec<u8>,
    /// The instance that decides (the leader).
    pub first: usize,
    /// The instances that may have prepared a part (the participants).
    pub others: Vec<usize>,
    /// Lanes that may still have some of its commands in flight, by instance and name.
    pub lanes: Vec<(usize, Vec<u8>)>,
}

/// True if clients of this worker may have sent commands. Worker 0 always counts, because it
/// accepts new clients.
pub(crate) fn is_concerned(index: usize, door: &Door) -> bool {
    index == 0 || door.clients.load(Relaxed) > 0
}

/// The way for other threads to reach a worker.
#[derive(Debug)]
pub struct Door {
    /// Letters to the worker.
    pub mailbox: Mailbox<Mail>,
    /// Messages for its subscribers.
    pub messages: Mailbox<Message>,
    /// Its counters.
    pub stats: Stats,
    /// The newest change of users' rights that it has applied.
    pub rights_seen: AtomicU64,
    /// Its clients, those in its mailbox included.
    pub clients: AtomicUsize,
}

impl Door {
    /// The door of a worker without clients.
    ///
    /// # Errors
    /// If no file descriptor is left.
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
    /// Take over this connection, which was just accepted.
    Accepted(OwnedFd, Peer),
    /// Take over this client of another worker; with the state of its lanes.
    Moved(Box<Client>, State),
    /// Move clients to another worker.
    Give {
        /// That worker.
        to: usize,
        /// The part of this worker's load to move, in thousandths.
        permille: u64,
    },
    /// The coordinator's reply to a client, and what it changes in the client's session.
    Reply(ClientKey, Vec<u8>, Change),
    /// For MONITOR: the commands that the scripts of a transaction ran, by their places in it. The
    /// transaction's reply follows in the next letter.
    ScriptLines(ClientKey, Vec<(usize, Vec<u8>)>),
    /// Answer EXEC: run these commands of the client under this lock, as if the client had just
    /// sent them. For commands that have already run, use the known replies. The last field: CLIENT
    /// CACHING is in effect for them.
    Run(ClientKey, Commands, usize, (Known, u64), u64, bool),
    /// Whether the client's next command may run. If not, its reply; if the user has changed, the
    /// new user.
    Verdict(ClientKey, Option<Vec<u8>>, Option<User>),
    /// The rights of a user have changed; `None`: the user does not exist any more.
    User(Arc<[u8]>, Option<u32>),
    /// Clients need not authenticate any more.
    OpenToAll,
    /// A lock: commands on its keys must wait.
    Lock(Arc<Lock>),
    /// The lock with this token is released.
    Unlock(u64),
    /// The keys of this lock are in doubt: commands on them are refused instead of waiting.
    Doubt(Arc<Lock>),
    /// A lock of one of this worker's commits or locked pops is granted.
    Locked(u64),
    /// A script runs too long, or has ended. Clients that wait for a lock check again.
    Busy,
    /// The state of an instance has changed.
    Instance(usize, InstanceState),
    /// Describe the clients to the coordinator: all, or those with these ids (sorted). The number
    /// identifies the request.
    ListClients(u64, Option<Arc<[u64]>>),
    /// Report the tally to the coordinator, and reset it if `true`. The number identifies the
    /// request.
    Tally(u64, bool),
    /// CLIENT PAUSE has ended: clients that wait for it try again.
    EndPause,
    /// Close the clients with these ids; if `true`, only after their pending replies.
    Kill(Vec<u64>, bool),
    /// Close the clients of a user that are subscribed to a channel outside these patterns.
    Confine {
        /// The user.
        user: Vec<u8>,
        /// The allowed channels, as in `&pattern`.
        channels: Vec<Vec<u8>>,
    },
    /// The instances are subscribed to the names that a client asked for, or cannot be for now.
    /// Send the client its confirmation, and return the ticket.
    Subscribe {
        /// The client.
        key: ClientKey,
        /// The sequence number of the reply that waits.
        sequence: u32,
        /// The coordinator's number for this request.
        ticket: u64,
        /// The names that were refused, because a script runs too long.
        refused: Option<Refused>,
    },
    /// A client's tracking mode; `None`: it does not track.
    Track(ClientKey, Option<Box<Mode>>),
    /// Send an invalidation to a client that tracks, or to the client it redirects to.
    Invalidate {
        /// The client that tracks.
        origin: ClientKey,
        /// The client it redirects to.
        target: Option<ClientKey>,
        /// The changed keys as an array; `None`: any key may have changed.
        body: Option<Arc<[u8]>>,
    },
    /// The client that this one redirects to is gone.
    BrokenRedirect(ClientKey),
    /// A line for the clients in MONITOR.
    Lines(Arc<[u8]>),
    /// Another worker asked for a round, this worker's round is over, or subscriptions have reached
    /// the instances.
    Round,
    /// Finish the commands in progress, then stop; the grace period in milliseconds.
    Stop(u64),
}

/// A letter to the coordinator.
#[derive(Debug)]
pub enum ToCoordinator {
    /// Run this command, and answer with `Mail::Reply`.
    Command {
        /// The client.
        key: ClientKey,
        /// Its session.
        info: Box<ClientInfo>,
        /// The command.
        args: Vec<Vec<u8>>,
        /// For EXEC: the queued commands; `None` if one was refused.
        queued: Option<Queued>,
        /// Inside EXEC: the lock that the command runs under.
        token: Option<u64>,
        /// Only ask whether the command may run; answered with `Mail::Verdict`.
        is_question: bool,
    },
    /// A client has run the commands of `Mail::Run`.
    Ran(ClientKey),
    /// A client has ended its side while the coordinator runs its command.
    HungUp(ClientKey),
    /// A client that the coordinator knows is gone.
    Gone(ClientKey),
    /// A lock is granted: no command in flight could bypass it.
    Locked {
        /// The lock's token.
        token: u64,
    },
    /// A commit of a worker failed, or its outcome is unknown: resolve it.
    Unsettled(Unsettled),
    /// Records of finished commits can be deleted.
    Finished,
    /// `slow_log` has new entries of commands that workers answered themselves.
    Logged,
    /// For the log: a client was closed, because its input would have exceeded the limit.
    SentTooMuch(Box<ClientInfo>),
    /// A script that a worker ran has touched a key that it may not touch.
    Strayed {
        /// The client that ran it; answered with `Mail::Reply`.
        key: ClientKey,
        /// The script, as it is known.
        script: Vec<u8>,
        /// The sandbox user that it ran as.
        guard: Vec<u8>,
        /// The entry of ACL LOG.
        log: Vec<u8>,
    },
    /// A script that a worker runs takes too long, or has ended.
    Overdue {
        /// The instance.
        instance: usize,
        /// True: it still runs.
        is_so: bool,
    },
    /// An instance's invalidation feed has brought something other than names of keys.
    Heard {
        /// The instance.
        instance: usize,
        /// What it has brought.
        heard: Heard,
    },
    /// News of the connection on which an instance publishes.
    Upstream {
        /// The instance.
        instance: usize,
        /// The news.
        said: Said,
    },
    /// A worker's answer to `Mail::ListClients`.
    Clients {
        /// The number of the request.
        request: u64,
        /// The worker's clients.
        clients: Vec<ClientInfo>,
    },
    /// A worker's answer to `Mail::Tally`.
    Tally {
        /// The number of the request.
        request: u64,
        /// What the worker has counted.
        report: Report,
    },
    /// Subscribe the instances to these names; answered with `Mail::Subscribe`.
    Subscribe {
        /// The client.
        key: ClientKey,
        /// The sequence number of the reply that waits.
        sequence: u32,
        /// The kind of the names.
        kind: Kind,
        /// The names, as the client sent them.
        names: Vec<Vec<u8>>,
    },
    /// A `Mail::Subscribe` with this ticket was handled.
    Subscribed(u64),
    /// Names got their first subscriber, or lost their last one.
    Interest {
        /// The kind of the names.
        kind: Kind,
        /// The names.
        names: Vec<Vec<u8>>,
        /// True: they have a subscriber.
        is_wanted: bool,
    },
    /// This worker's thread has ended.
    Stopped(usize),
}

/// What the coordinator's reply changes in a client's session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// The new database, as after SELECT.
    pub db: Option<u32>,
    /// Whether the coordinator watches keys for the client.
    pub watching: Option<bool>,
    /// The client is in MONITOR from now on.
    pub monitoring: bool,
}
