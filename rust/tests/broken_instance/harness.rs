//! A worker between real sockets and instances that do as they are told.

use crate::client::Connection;
use _core::catalog::key_specs::{Begin, Find, KeySpec};
use _core::catalog::merge_kind::Merge;
use _core::catalog::table::{Route, Row, Table, Verb};
use _core::commands::session::hello_reply;
use _core::core::worker::Worker;
use _core::lane::instance::InstanceState;
use _core::net::socket::Listener;
use _core::resp::request::{Cut, Limits, Request, push_bulk};
use _core::routing::placement::Placement;
use _core::routing::slots::{SLOTS, SlotMap};
use _core::tables::output_limits::OutputLimits;
use _core::tables::settings::Settings;
use _core::tables::users::Users;
use _core::threads::letters::{Door, Mail, ToCoordinator, Unsettled};
use _core::threads::mailbox::Mailbox;
use _core::threads::shared::Shared;
use _core::threads::subscriptions::Registry;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that the worker may buffer for its clients.
pub const CLIENT_MEMORY: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What an instance does on one connection.
#[derive(Clone)]
pub struct Script {
    /// Its answer to the lane's AUTH.
    pub opening: Vec<u8>,
    /// How many commands it waits for.
    pub after: usize,
    /// What it then writes, in these pieces.
    pub pieces: Vec<Vec<u8>>,
    /// Whether it then hangs up; else it goes on as a good one.
    pub hangs_up: bool,
}

impl Script {
    /// Writes `bytes` after two commands.
    pub fn writes(bytes: &[u8]) -> Self {
        let pieces = vec![bytes.to_vec()];
        Self { opening: b"+OK\r\n".to_vec(), after: 2, pieces, hangs_up: false }
    }
}

/// A fake instance: connections follow the scripts, one after the other; then it is a good one,
/// which answers each GET with the key.
pub struct Instance {
    path: PathBuf,
    scripts: Mutex<VecDeque<Script>>,
    /// Commands received on all connections.
    received: Mutex<usize>,
    arrival: Condvar,
    pub connections: AtomicUsize,
    /// What it says to EXEC; nothing: it hangs up.
    pub exec: Mutex<Vec<u8>>,
    /// What it says to MEMORY USAGE.
    pub usage: Mutex<Vec<u8>>,
}

impl Instance {
    fn start(path: PathBuf, scripts: Vec<Script>) -> Arc<Self> {
        let listener = UnixListener::bind(&path).expect("a fresh path");
        let instance = Arc::new(Self {
            path,
            scripts: Mutex::new(scripts.into()),
            received: Mutex::new(0),
            arrival: Condvar::new(),
            connections: AtomicUsize::new(0),
            exec: Mutex::default(),
            usage: Mutex::new(b"$-1\r\n".to_vec()),
        });
        let this = Arc::clone(&instance);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (this, stream) = (Arc::clone(&this), stream.expect("a connection"));
                this.connections.fetch_add(1, Ordering::SeqCst);
                let script = this.scripts.lock().expect("no panic").pop_front();
                std::thread::spawn(move || this.serve(stream, script));
            }
        });
        instance
    }

    /// Waits until it has received so many commands.
    pub fn wait_for(&self, commands: usize) {
        let received = self.received.lock().expect("no panic");
        let (received, _) = self
            .arrival
            .wait_timeout_while(received, PATIENCE, |received| *received < commands)
            .expect("no panic");
        assert!(*received >= commands, "the instance received {received} commands of {commands}");
    }

    fn serve(&self, mut stream: UnixStream, mut script: Option<Script>) {
        let (mut buffer, mut request, mut keys) = (Vec::new(), Request::default(), Vec::new());
        loop {
            let mut chunk = [0; 4096];
            let Ok(read @ 1..) = stream.read(&mut chunk) else { return };
            buffer.extend_from_slice(&chunk[..read]);
            while let Ok(Cut::Complete(length)) = request.cut(&buffer, Limits::NONE) {
                let raw: Vec<u8> = buffer.drain(..length).collect();
                let args: Vec<_> = request.args(&raw).iter().map(<[u8]>::to_vec).collect();
                request.reset();
                let special = match &args[0][..] {
                    b"EXEC" => Some(&self.exec),
                    b"MEMORY" => Some(&self.usage),
                    _ => None,
                };
                if let Some(reply) = special {
                    let reply = reply.lock().expect("no panic").clone();
                    if reply.is_empty() || stream.write_all(&reply).is_err() {
                        return;
                    }
                    continue;
                }
                if args[0] != b"GET" && args[0] != b"MGET" {
                    let script = script.as_ref().filter(|_| args[0] == b"AUTH");
                    let opening = script.map_or(&b"+OK\r\n"[..], |script| &script.opening);
                    if stream.write_all(opening).is_err() {
                        return;
                    }
                    continue;
                }
                keys.push(args);
                *self.received.lock().expect("no panic") += 1;
                self.arrival.notify_all();
                if script.is_none() {
                    answer(&mut stream, &mut keys);
                }
            }
            if script.as_ref().is_some_and(|script| keys.len() >= script.after) {
                let script = script.take().expect("just seen");
                for piece in &script.pieces {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                }
                if script.hangs_up {
                    return;
                }
                keys.clear();
            }
        }
    }
}

/// As a good instance would.
fn answer(stream: &mut UnixStream, commands: &mut Vec<Vec<Vec<u8>>>) {
    for args in commands.drain(..) {
        let mut reply = Vec::new();
        if args[0] == b"MGET" {
            reply.extend_from_slice(format!("*{}\r\n", args.len() - 1).as_bytes());
        }
        for key in &args[1..] {
            push_bulk(&mut reply, key);
        }
        let _ = stream.write_all(&reply);
    }
}

/// What a coordinator is told.
#[derive(Default)]
pub struct Told {
    /// How often to run the command.
    pub commands: usize,
    pub unsettled: Vec<Unsettled>,
}

/// A worker on a thread of its own, with a listener and its instances.
pub struct Proxy {
    pub instances: Vec<Arc<Instance>>,
    folder: PathBuf,
    shared: Arc<Shared>,
    /// Ends with the number of allocations.
    thread: Option<JoinHandle<u64>>,
}

impl Proxy {
    /// One instance a list of scripts; instance i owns an equal share of the slots.
    pub fn start(scripts: Vec<Vec<Script>>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("broken-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).expect("a fresh directory");
        let instances: Vec<_> = scripts
            .into_iter()
            .enumerate()
            .map(|(index, scripts)| Instance::start(folder.join(format!("i{index}")), scripts))
            .collect();
        let listener = UnixListener::bind(folder.join("c")).expect("a fresh path");
        listener.set_nonblocking(true).expect("a socket");
        let listener = Listener { fd: listener.into(), address: "c".into(), is_unix: true };
        let shared = Arc::new(shared(instances.len()));
        let states = instances
            .iter()
            .map(|one| InstanceState::Ready(one.path.display().to_string()))
            .collect();
        let worker = Worker::new(0, Arc::clone(&shared), vec![listener], states, false)
            .expect("descriptors");
        let run = move || allocation_counter::measure(|| worker.run()).count_total;
        let thread = Some(std::thread::spawn(run));
        Self { instances, folder, shared, thread }
    }

    pub fn client(&self) -> Connection {
        let stream = UnixStream::connect(self.folder.join("c")).expect("the worker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Connection { stream }
    }
}

impl Proxy {
    /// Takes in what the worker has told the coordinator of a client's command.
    pub fn tell(&self, command: &[&[u8]], told: &mut Told) {
        for letter in self.shared.coordinator.take() {
            match letter {
                ToCoordinator::Command { args, .. } => {
                    assert_eq!(args, command);
                    told.commands += 1;
                }
                ToCoordinator::Unsettled(one) => told.unsettled.push(one),
                _ => {}
            }
        }
    }

    /// Lets a client send a command that it hears of, or else the coordinator; what that was told.
    pub fn ask(&self, command: &[&[u8]], reply: Option<&[u8]>) -> Told {
        let (mut client, mut told) = (self.client(), Told::default());
        client.send(command);
        match reply {
            Some(reply) => client.expect(reply, "what was asked"),
            None => {
                while told.commands == 0 {
                    self.tell(command, &mut told);
                }
            }
        }
        self.tell(command, &mut told);
        told
    }

    /// How many locks there are.
    pub fn locks(&self) -> usize {
        self.shared.lock_table.count()
    }

    /// Ends the worker; how often it has allocated memory.
    pub fn stop(&mut self) -> u64 {
        self.shared.doors[0].mailbox.post(Mail::Stop(0));
        self.thread.take().map_or(0, |thread| thread.join().expect("no panic"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn shared(instances: usize) -> Shared {
    let range = |last| {
        let find = Find::Range { last, step: 1, limit: 0 };
        vec![KeySpec { begin: Begin::Index(1), find }]
    };
    let values =
        KeySpec { begin: Begin::Index(1), find: Find::Range { last: -1, step: 2, limit: 0 } };
    let mut mset = Row::new(b"mset".to_vec(), -3, Route::Keys, vec![values]);
    mset.parts = Some(Merge::AllSucceeded);
    let mut blpop = Row::new(b"blpop".to_vec(), -3, Route::Coordinator, range(-2));
    (blpop.blocks, blpop.takes_first) = (true, true);
    blpop.traits.waits_for_others = true;
    let mut ping = Row::new(b"ping".to_vec(), -1, Route::Session(Verb::Ping), Vec::new());
    ping.no_auth = true;
    let rows = vec![
        Row::new(b"get".to_vec(), 2, Route::Keys, range(0)),
        Row::new(b"mget".to_vec(), -2, Route::Split(Merge::Keyed), range(-1)),
        mset,
        blpop,
        ping,
    ];
    let edges: Vec<_> = (0..=instances).map(|index| index * SLOTS / instances).collect();
    let ranges: Vec<_> = (0..instances)
        .map(|index| {
            (edges[index], edges[index + 1] - 1, u16::try_from(index).expect("a few instances"))
        })
        .collect();
    let door = Door::new().expect("descriptors");
    let users = Users::default();
    users.set_open(true);
    Shared {
        table: Table::new(rows).expect("a table"),
        placement: Arc::new(Placement::new(
            SlotMap::new(&ranges, instances).expect("a slot map"),
            Vec::new(),
            &[],
        )),
        instances,
        instance_password: b"secret".to_vec(),
        databases: 16,
        hello: [hello_reply(&[], false), hello_reply(&[], true)],
        client_memory: CLIENT_MEMORY,
        pushes_follow_replies: true,
        unsubscribing_needs_subscription: true,
        asks_who_first: false,
        keeps_queue: true,
        queues_nothing_when_full: false,
        is_valkey: false,
        dialect: _core::resp::inline::Dialect::Redis,
        ordered_pipelines: false,
        registry: Registry::default(),
        rounds: _core::threads::rounds::Rounds::new(1),
        upstreams: _core::tables::event_feeds::EventFeeds::new(instances).expect("random numbers"),
        invalidation_feeds: _core::tables::invalidation_feeds::InvalidationFeeds::default(),
        tracking: _core::threads::tracking_table::Tracking::default(),
        blocking_keys: _core::tables::blocking_keys::BlockingKeys::default(),
        lock_table: _core::tables::lock_table::LockTable::default(),
        finished: _core::tables::commit_records::Finished::new().expect("random numbers"),
        slow_log: _core::tables::slow_log::SlowLog::default(),
        denials: _core::threads::denials::Denials::default(),
        scripts: _core::tables::known_scripts::Scripts::default(),
        monitors: AtomicUsize::new(0),
        users,
        settings: Settings {
            output_limits: OutputLimits::default(),
            protected_mode: AtomicBool::new(true),
            newcomers_worker: AtomicUsize::new(0),
            newcomers_room: AtomicUsize::new(0),
            maxclients: AtomicUsize::new(100),
            busy: AtomicUsize::new(usize::MAX),
            busy_words: Mutex::default(),
            tight: AtomicBool::new(false),
            timeout: AtomicU64::new(0),
            tcp_keepalive: AtomicU64::new(0),
            log_all: AtomicBool::new(false),
            log_slow: AtomicU64::new(u64::MAX),
            log_requests: AtomicU64::new(u64::MAX),
            log_replies: AtomicU64::new(u64::MAX),
            events: AtomicU8::new(0),
            client_memory: AtomicUsize::new(0),
            input_limit: AtomicUsize::new(1024 * 1024 * 1024),
            argument_limit: AtomicUsize::new(512 * 1024 * 1024),
            pause: AtomicU8::new(0),
        },
        last_client_id: AtomicU64::new(0),
        connected: AtomicUsize::new(0),
        moves: Mutex::default(),
        doors: vec![door],
        coordinator: Mailbox::new().expect("a descriptor"),
    }
}
