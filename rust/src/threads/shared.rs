//! What every worker and the coordinator share: fixed facts, a few settings, and mailboxes.
//!
//! Nothing here is touched for an ordinary command, except facts that never change.

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
    pub upstreams: EventFeeds,
    /// Instances say here which keys have changed.
    pub invalidation_feeds: InvalidationFeeds,
    /// Who is told of changed keys.
    pub tracking: Tracking,
    /// For which keys clients wait.
    pub blocking_keys: BlockingKeys,
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

    /// True while no command needs a second look for the sake of others.
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
                door.mailbox.post(Mail::Round); // whose writes wait for that go on
            }
        }
    }

    /// Whether any other worker has clients.
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

    /// A worker has ended all rounds up to this one: tells who waits for no other.
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

    /// Says what a user is, or that there is none of that name.
    pub fn set_user(&self, name: &[u8], id: Option<u32>) {
        let name: Arc<[u8]> = name.into();
        let seen = self.doors.iter().map(|door| door.rights_seen.load(Acquire));
        self.users.set(&name, id, seen.min().unwrap_or(0));
        self.post_to_all(|| Mail::User(Arc::clone(&name), id));
    }
}
