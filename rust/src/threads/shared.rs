//! What all workers and the coordinator share: fixed facts, a few settings, and mailboxes.
//!
//! An ordinary command touches nothing here except facts that never change.

use crate::catalog::channels::{Kind, concerns_events};
use crate::catalog::table::{Row, Table};
use crate::resp::inline::Dialect;
use crate::routing::placement::Placement;
use crate::tables::blocking_keys::BlockingKeys;
use crate::tables::commit_records::Finished;
use crate::tables::event_feeds::EventFeeds;
use crate::tables::invalidation_feeds::InvalidationFeeds;
use crate::tables::known_scripts::Scripts;
use crate::tables::lock_table::LockTable;
use crate::tables::pause;
use crate::tables::settings::{OF_READS, Settings};
use crate::tables::slow_log::SlowLog;
use crate::tables::users::Users;
use crate::threads::denials::Denials;
use crate::threads::letters::{Door, Mail, ToCoordinator, is_concerned};
use crate::threads::mailbox::Mailbox;
use crate::threads::rounds::Rounds;
use crate::threads::subscriptions::Registry;
use crate::threads::tracking_table::Tracking;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

/// The least effective `maxmemory-clients`, in bytes. With less, no client could set another value.
const CLIENT_MEMORY_LEAST: usize = 128 * 1024;

/// Facts that hold for the proxy's lifetime, and the doors between its threads.
#[derive(Debug)]
pub struct Shared {
    /// The table of all commands.
    pub table: Table,
    /// Maps a key to its instance.
    pub placement: Arc<Placement>,
    /// The number of instances.
    pub instances: usize,
    /// The password with which lanes authenticate.
    pub instance_password: Vec<u8>,
    /// The number of databases that a client may select.
    pub databases: u32,
    /// The reply to HELLO in RESP2 and RESP3: the part before the client's id, and the part after
    /// it.
    pub hello: [(Vec<u8>, Vec<u8>); 2],
    /// The bytes of client buffers that a worker may hold before it closes the client with the
    /// most. `maxmemory-clients` can lower the limit.
    pub client_memory: usize,
    /// As in newer servers: a push that a client causes for itself follows the reply.
    pub pushes_follow_replies: bool,
    /// As in newer servers: UNSUBSCRIBE without subscriptions is an error.
    pub unsubscribing_needs_subscription: bool,
    /// As in newer servers: a client that is not authenticated cannot find out which commands
    /// exist.
    pub asks_who_first: bool,
    /// The queue of a transaction is dropped once EXEC must fail, and CLIENT LIST shows multi=0,
    /// not -1, for a client that has used MULTI or WATCH before.
    pub keeps_queue: bool,
    /// At maxmemory, instances queue no command at all, not even one that frees memory.
    pub queues_nothing_when_full: bool,
    /// The instances are Valkey servers.
    pub is_valkey: bool,
    /// The server whose syntax of inline commands is accepted.
    pub dialect: Dialect,
    /// In a pipeline, a write waits for earlier writes on other instances.
    pub ordered_pipelines: bool,
    /// All subscriptions.
    pub registry: Registry,
    /// The rounds, for which PUBLISH waits.
    pub rounds: Rounds,
    /// The connections on which instances publish.
    pub upstreams: EventFeeds,
    /// The connections on which instances name changed keys.
    pub invalidation_feeds: InvalidationFeeds,
    /// The clients that track, and the keys they have read.
    pub tracking: Tracking,
    /// The keys that have blocked clients.
    pub blocking_keys: BlockingKeys,
    /// All locks.
    pub lock_table: LockTable,
    /// Commits of workers that have finished, for readers of commit records.
    pub finished: Finished,
    /// The entries of SLOWLOG that instances do not have.
    pub slow_log: SlowLog,
    /// For ACL LOG.
    pub denials: Denials,
    /// What is known of scripts.
    pub scripts: Scripts,
    /// The number of clients in MONITOR, of all workers.
    pub monitors: AtomicUsize,
    /// The users that clients may authenticate as.
    pub users: Users,
    /// What CONFIG SET may change.
    pub settings: Settings,
    /// The id of the newest client; the next one gets this plus one.
    pub last_client_id: AtomicU64,
    /// The number of clients of all workers.
    pub connected: AtomicUsize,
    /// Held while a client moves between workers, and while a letter about any client is posted to
    /// all workers. So exactly one worker finds each client.
    pub moves: Mutex<()>,
    /// One door per worker.
    pub doors: Vec<Door>,
    /// The coordinator's mailbox.
    pub coordinator: Mailbox<ToCoordinator>,
}

impl Shared {
    /// The bytes of client buffers that a worker may hold.
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

    /// True if an instance may refuse to queue this command, because memory is short or a script
    /// runs too long.
    #[must_use]
    pub fn may_refuse(&self, row: &Row) -> bool {
        self.may_lack_memory(row) || self.settings.busy().is_some()
    }

    /// True if an instance may refuse to queue this command because memory is short.
    #[must_use]
    pub fn may_lack_memory(&self, row: &Row) -> bool {
        let may_need_memory = row.may_need_memory || self.queues_nothing_when_full;
        may_need_memory && self.settings.tight.load(Relaxed)
    }

    /// True while no setting or client requires a further check of each command.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        !self.ordered_pipelines
            && self.settings.pause.load(Relaxed) == pause::NONE
            && self.monitors.load(Relaxed) == 0
            && self.settings.events.load(Relaxed) != OF_READS
    }

    /// The instances are subscribed to these names.
    pub fn are_upstream(&self, kind: Kind, names: &[Vec<u8>]) {
        self.registry.are_upstream(kind, names);
        if names.iter().any(|name| concerns_events(kind, name)) {
            for door in &self.doors {
                door.mailbox.post(Mail::Round); // writes that wait for it go on
            }
        }
    }

    /// True if any other worker has clients.
    pub(crate) fn has_others(&self, worker: usize) -> bool {
        let mut doors = self.doors.iter().enumerate();
        doors.any(|(index, door)| index != worker && is_concerned(index, door))
    }

    /// Begins a round for a worker.
    pub(crate) fn ask_for_round(&self, worker: usize) -> u64 {
        let mut open = self.rounds.lock();
        let round = self.rounds.asked.fetch_add(1, SeqCst) + 1;
        open.push((round, worker));
        drop(open);
        for (index, door) in self.doors.iter().enumerate() {
            if index != worker && is_concerned(index, door) {
                door.mailbox.post(Mail::Round);
            }
        }
        round
    }

    /// A worker has ended all rounds up to this one. Wakes the workers whose rounds are over.
    pub(crate) fn end_rounds(&self, worker: usize, round: u64) {
        self.rounds.ended[worker].store(round, SeqCst);
        self.rounds.lock().retain(|&(open, asker)| {
            let is_over = self.rounds.is_over(open, &self.doors);
            if is_over {
                self.doors[asker].mailbox.post(Mail::Round);
            }
            !is_over
        });
    }

    /// Sets a user's id; `None`: no user has that name.
    pub fn set_user(&self, name: &[u8], id: Option<u32>) {
        let name: Arc<[u8]> = name.into();
        let seen = self.doors.iter().map(|door| door.rights_seen.load(Acquire));
        self.users.set(&name, id, seen.min().unwrap_or(0));
        self.post_to_all(|| Mail::User(Arc::clone(&name), id));
    }
}
