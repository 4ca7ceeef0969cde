//! The module `threadis._core`: the only code in Rust that knows Python.
//!
//! One configuration goes in; letters, numbers and replies come and go. Nothing here is called
//! for an ordinary command.

use crate::catalog::channels::KINDS;
use crate::catalog::table::Table;
use crate::client::executing::{Commands, Known};
use crate::commands::session::hello_reply;
use crate::core::worker::Worker;
use crate::lane::instance::InstanceState;
use crate::net::socket::Listener;
use crate::resp::inline::Dialect;
use crate::tables::blocking_keys::BlockingKeys;
use crate::tables::commit_records::Finished;
use crate::tables::invalidation_feeds::InvalidationFeeds;
use crate::tables::known_scripts::Scripts;
use crate::tables::lock_table::LockTable;
use crate::tables::users::{User, Users};
use crate::threads::letters::{Change, Door, Mail};
use crate::threads::mailbox::Mailbox;
use crate::threads::rounds::Rounds;
use crate::threads::shared::Shared;
use crate::threads::subscriptions::Registry;
use crate::threads::tracking_table::Tracking;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

mod commits;
mod config;
mod convert;
mod facts;
mod letters;
mod lines;
mod long;
mod placement;
mod pubsub;
mod replies;
mod rows;
mod scripts;
mod thread;
mod tracking;
mod waits;

use commits::{Finished as FinishedCommits, Locked, PyLockTable, Unsettled, WorkerCommits};
use config::Config;
use convert::os_error;
use facts::{
    build_profile, glob_matches, is_our_channel, is_our_name, is_record, our_prefix, record_prefix,
    slot, unique_name,
};
use letters::{
    ClientList, Command, Heard, Left, Logged, LoggedCommand, Ran, SentTooMuch, Stopped, Tally,
    denied, letter_to_python, logged, note_denied,
};
use lines::Lines;
use long::{Packed, Pieces, copied};
use placement::PyPlacement;
use pubsub::{EventFeeds, Interest, Said, Subscribe, Subscribed};
use replies::{Replies, bounds, elements, is_reply};
use rows::CommandRow;
use scripts::{KnownScripts, Overdue, Strayed};
use thread::start_thread;
use tracking::Trackers;
use waits::Waits;

/// The module.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::{
        ClientList, Command, EventFeeds, FinishedCommits, Heard, Interest, KnownScripts, Left,
        Lines, Locked, Logged, Overdue, Packed, Pieces, Proxy, PyLockTable, PyPlacement, Ran,
        Replies, Said, SentTooMuch, Stopped, Strayed, Subscribe, Subscribed, Tally, Trackers,
        Unsettled, Waits, WorkerCommits, bounds, build_profile, denied, elements, glob_matches,
        is_our_channel, is_our_name, is_record, is_reply, note_denied, our_prefix, record_prefix,
        slot, unique_name,
    };
    #[pymodule_export]
    use crate::client::session::ClientInfo;
    #[pymodule_export]
    use crate::load::python::{preload_keys, run_load};
}

/// The workers, from the coordinator's side.
#[pyclass(frozen)]
struct Proxy {
    shared: Arc<Shared>,
    waiting: Mutex<Option<Waiting>>,
}

/// What `start` needs, once.
struct Waiting {
    listeners: Vec<Listener>,
    workers: Vec<(Vec<usize>, bool)>,
    backlog: i32,
}

#[pymethods]
impl Proxy {
    /// Checks the configuration; nothing runs yet. The listeners' descriptors are ours from here.
    #[new]
    pub(crate) fn new(config: Config) -> PyResult<Self> {
        let bad = PyValueError::new_err::<String>;
        let settings = config.settings();
        let rows = config.commands.into_iter().map(CommandRow::into_row);
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let doors = config.workers.iter().map(|_| Door::new());
        let doors = doors.collect::<Result<Vec<_>, _>>().map_err(os_error)?;
        let shared = Shared {
            table: Table::new(rows).map_err(bad)?,
            placement: config.placement.get().0.clone(),
            instances: config.instance_count,
            instance_password: config.instance_password,
            databases: config.databases,
            hello: [hello_reply(&config.hello2, false), hello_reply(&config.hello3, true)],
            client_memory: config.client_memory / config.workers.len().max(1),
            pushes_follow_replies: config.pushes_follow_replies,
            unsubscribing_needs_subscription: config.unsubscribing_needs_subscription,
            queues_nothing_when_full: config.queues_nothing_when_full,
            asks_who_first: config.asks_who_first,
            keeps_queue: config.keeps_queue,
            is_valkey: config.is_valkey,
            dialect: if config.is_valkey { Dialect::Valkey } else { Dialect::Redis },
            ordered_pipelines: config.ordered_pipelines,
            registry: Registry::default(),
            rounds: Rounds::new(config.workers.len()),
            upstreams: crate::tables::event_feeds::EventFeeds::new(config.instance_count)
                .map_err(os_error)?,
            invalidation_feeds: InvalidationFeeds::default(),
            tracking: Tracking::default(),
            blocking_keys: BlockingKeys::default(),
            lock_table: LockTable::default(),
            finished: Finished::new().map_err(os_error)?,
            slow_log: crate::tables::slow_log::SlowLog::default(),
            denials: crate::threads::denials::Denials::default(),
            scripts: Scripts::default(),
            monitors: AtomicUsize::new(0),
            users: Users::default(),
            settings,
            last_client_id: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
            moves: Mutex::new(()),
            doors,
            coordinator: Mailbox::new().map_err(os_error)?,
        };
        let listeners = config.listeners.into_iter().map(|(fd, address, is_unix)| Listener {
            fd: own(fd),
            address,
            is_unix,
        });
        let waiting = Waiting {
            listeners: listeners.collect(),
            workers: config.workers,
            backlog: config.backlog,
        };
        Ok(Self { shared: Arc::new(shared), waiting: Mutex::new(Some(waiting)) })
    }

    /// Listens and starts the workers; their thread ids, in order.
    fn start(&self) -> PyResult<Vec<i32>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = waiting.ok_or_else(|| PyValueError::new_err("already started"))?;
        for listener in &waiting.listeners {
            rustix::io::ioctl_fionbio(&listener.fd, true).map_err(os_error)?;
            rustix::net::listen(&listener.fd, waiting.backlog).map_err(os_error)?;
        }
        let mut listeners = waiting.listeners;
        let mut threads = Vec::new();
        for (index, (cpus, spins)) in waiting.workers.into_iter().enumerate() {
            let instances = vec![InstanceState::Down("starting".into()); self.shared.instances];
            let shared = Arc::clone(&self.shared);
            // Only the first worker accepts; it hands connections on.
            let listeners = std::mem::take(&mut listeners);
            let worker =
                Worker::new(index, shared, listeners, instances, spins).map_err(os_error)?;
            threads.push(start_thread(worker, &cpus)?);
        }
        Ok(threads)
    }

    /// A descriptor that is readable while `take` has something.
    fn bell(&self) -> i32 {
        self.shared.coordinator.bell().as_raw_fd()
    }

    /// What workers ask and tell.
    fn take(&self, py: Python) -> PyResult<Vec<Py<PyAny>>> {
        let letters = self.shared.coordinator.take().into_iter();
        letters.map(|letter| letter_to_python(py, letter)).collect()
    }

    /// Answers a command, and changes the client's session.
    #[pyo3(signature = (command, data, db=None, watching=None, monitoring=false))]
    fn reply(
        &self,
        py: Python,
        command: &Command,
        data: &[u8],
        db: Option<u32>,
        watching: Option<bool>,
        monitoring: bool,
    ) {
        let (key, reply) = (command.key(), copied(py, data));
        if let Some(door) = self.shared.doors.get(key.worker) {
            door.mailbox.post(Mail::Reply(key, reply, Change { db, watching, monitoring }));
        }
    }

    /// Tells a client that it is subscribed, now that the instances are, or that a script runs too long;
    /// answers with `Subscribed`.
    fn subscribe(&self, request: &Subscribe, ticket: u64, is_refused: bool) {
        request.answer(&self.shared, ticket, is_refused);
    }

    /// How many channels, patterns and sharded channels have subscribers.
    fn subscriptions(&self) -> [usize; 3] {
        KINDS.map(|kind| self.shared.registry.len(kind))
    }

    /// Changes what may wait for a client that does not read.
    fn set_output_limit(&self, class_: &str, hard: u64, soft: u64, seconds: u64) -> PyResult<()> {
        let limits = &self.shared.settings.output_limits;
        match class_ {
            "normal" => limits.normal.set(hard, soft, seconds),
            "pubsub" => limits.pubsub.set(hard, soft, seconds),
            _ => return Err(PyValueError::new_err(format!("no class {class_:?}"))),
        }
        Ok(())
    }

    /// Answers EXEC: the worker runs, under a lock, what has no reply yet, then says `Ran`. So many
    /// more are to come then, by another call.
    fn run_queued(
        &self,
        command: &Command,
        queued: (Commands, usize),
        known: (Known, u64),
        token: u64,
    ) {
        let (key, caching) = (command.key(), command.info.get().is_caching);
        if let Some(door) = self.shared.doors.get(key.worker) {
            door.mailbox.post(Mail::Run(key, queued.0, queued.1, known, token, caching));
        }
    }

    /// Looks a command up: its row's name, and for each key specification the arguments it names.
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    pub(crate) fn find<'py>(&self, args: Vec<Bound<'py, PyBytes>>) -> Option<rows::Found<'py>> {
        rows::find(&self.shared.table, &args)
    }

    /// Says where an instance listens, or (without a socket) why it cannot be reached.
    fn set_instance(&self, index: usize, socket: Option<String>, why: String) -> PyResult<()> {
        if index >= self.shared.instances {
            return Err(PyValueError::new_err(format!("no instance {index}")));
        }
        let state = match socket {
            Some(socket) => InstanceState::Ready(socket),
            None if why == "loading" => InstanceState::Loading,
            None => InstanceState::Down(why),
        };
        for door in &self.shared.doors {
            door.mailbox.post(Mail::Instance(index, state.clone()));
        }
        Ok(())
    }

    /// What workers tell the logs: address and name of the client, the command, when it ended, how
    /// long it took at most, bytes of request and reply, its parts.
    fn take_logged(&self) -> Vec<LoggedCommand> {
        self.shared.slow_log.take().into_iter().map(logged).collect()
    }

    /// How many of these were dropped because too many waited.
    fn dropped_logged(&self) -> u64 {
        self.shared.slow_log.dropped()
    }

    /// Answers a question: lets the client's command run, or refuses it with this reply.
    fn judge(&self, command: &Command, refusal: Option<Vec<u8>>, user: Option<(Vec<u8>, u32)>) {
        let key = command.key();
        let user = user.map(|(name, id)| User { name: name.into(), id });
        self.shared.doors[key.worker].mailbox.post(Mail::Verdict(key, refusal, user));
    }

    /// Says what a user is: 0 if unrestricted, else a number of its own; nothing if there is none.
    fn set_user(&self, name: &[u8], id: Option<u32>) {
        self.shared.set_user(name, id);
    }

    /// Says whether a new connection may go on without a password.
    fn set_open(&self, is_open: bool) {
        self.shared.users.set_open(is_open);
        if is_open {
            self.shared.post_to_all(|| Mail::OpenToAll);
        }
    }

    /// Says where a script runs too long, and what that instance says to everyone.
    fn set_busy(&self, instance: Option<usize>, words: &str) {
        self.shared.settings.set_busy(instance, words);
        self.shared.post_to_all(|| Mail::Busy);
    }

    /// Whether an instance is near its limit of memory, or has said so to a worker.
    fn is_tight(&self) -> bool {
        self.shared.settings.tight.load(Relaxed)
    }

    /// Changes a number that clients are judged by, or the worker that gets new ones.
    fn set_limit(&self, name: &str, value: u64) -> PyResult<()> {
        let is_known = self.shared.settings.set(name, value);
        is_known.then_some(()).ok_or_else(|| PyValueError::new_err(format!("no limit {name:?}")))
    }

    /// Counters of each worker.
    fn stats(&self) -> Vec<HashMap<&'static str, u64>> {
        self.shared.doors.iter().map(|door| door.stats.read().into_iter().collect()).collect()
    }

    /// How many clients are connected.
    fn connected(&self) -> usize {
        self.shared.connected.load(Relaxed)
    }

    /// Asks every worker for a `ClientList` of this number: its clients, or those with these ids.
    fn list_clients(&self, request: u64, ids: Option<Vec<u64>>) {
        let ids = ids.map(Arc::from);
        self.shared.post_to_all(|| Mail::ListClients(request, ids.clone()));
    }

    /// Asks every worker for a `Tally` of this number; it may begin from zero again.
    fn tally(&self, request: u64, reset: bool) {
        for door in &self.shared.doors {
            door.mailbox.post(Mail::Tally(request, reset));
        }
    }

    /// CLIENT PAUSE: 0 nothing, 1 writes, 2 everything; who waits already tries again.
    fn set_pause(&self, what: u8) {
        self.shared.settings.pause.store(what, Release);
        for door in &self.shared.doors {
            door.mailbox.post(Mail::EndPause);
        }
    }

    /// Closes clients, by id; at once, or after what they are owed.
    #[expect(clippy::needless_pass_by_value, reason = "Python's list is copied anyway")]
    fn kill_clients(&self, ids: Vec<u64>, after_replies: bool) {
        self.shared.post_to_all(|| Mail::Kill(ids.clone(), after_replies));
    }

    /// Closes clients of a user that listen to channels that none of these patterns matches.
    #[expect(clippy::needless_pass_by_value, reason = "Python's are copied anyway")]
    fn confine(&self, user: Vec<u8>, channels: Vec<Vec<u8>>) {
        self.shared
            .post_to_all(|| Mail::Confine { user: user.clone(), channels: channels.clone() });
    }

    /// Lets a worker give clients with so many thousandths of its load to another.
    fn give(&self, worker: usize, to: usize, permille: u64) {
        self.shared.doors[worker].mailbox.post(Mail::Give { to, permille });
    }

    /// Stops accepting; each worker answers what runs, for at most `grace` milliseconds, and
    /// ends with a `Stopped`.
    fn stop(&self, grace: u64) {
        for door in &self.shared.doors {
            door.mailbox.post(Mail::Stop(grace));
        }
    }
}

/// Takes a descriptor over.
#[allow(unsafe_code)]
fn own(fd: i32) -> OwnedFd {
    // SAFETY: `threadis.proxy` inherits these descriptors from the supervisor, names each one
    // here once, and never uses it again. This is the only unsafe line of the crate.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
