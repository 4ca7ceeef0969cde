//! The load generator against a real `redis-server`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

use _core::load::{Address, Fault, Keys, LoadConfig, LoadReport, Mix, preload, run, run_until};

static NEVER: AtomicBool = AtomicBool::new(false);

/// A server on a Unix socket and a TCP port, both its own; stopped when dropped.
struct Server {
    process: Child,
    directory: PathBuf,
    port: u16,
    _held: OwnedFd,
}

impl Server {
    /// `None`, said aloud, where there is no `redis-server`.
    fn start(name: &str) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("load-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (held, port) = hold_port().expect("a free port");
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--unixsocket", "server.sock", "--dir"])
            .arg(&directory)
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            let _ = writeln!(std::io::stderr(), "SKIPPED {name}: no redis-server");
            return None;
        };
        let mut server = Self { process, directory, port, _held: held };
        server.wait_until_it_listens();
        Some(server)
    }

    /// At its own socket, which comes after its port.
    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(self.directory.join("server.sock")).is_err() {
            assert!(self.process.try_wait().expect("a child").is_none(), "redis-server ended");
            assert!(Instant::now() < deadline, "redis-server did not start");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn tcp(&self) -> Address {
        Address::Tcp(format!("127.0.0.1:{}", self.port))
    }

    fn unix(&self) -> Address {
        Address::Unix(Path::new(&self.directory).join("server.sock"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A port that the kernel gives to nobody else while it is held: who asks for it by number, and
/// allows `SO_REUSEADDR`, as servers do, can still listen there.
fn hold_port() -> std::io::Result<(OwnedFd, u16)> {
    let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&held, true)?;
    bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddrV4::try_from(getsockname(&held)?)?;
    Ok((held, address.port()))
}

fn config(address: Address) -> LoadConfig {
    LoadConfig {
        nodes: vec![address],
        connections: 5,
        pipeline: 16,
        value_size: 16,
        mix: Mix::Get,
        batches: Vec::new(),
        key_count: 1000,
        keys: Keys::Uniform,
        rate: None,
        seconds: 0.2,
        warmup: 0.05,
        threads: 1,
        password: None,
        seed: 1,
        cpus: Vec::new(),
        private_keys: false,
        preloaded: true,
    }
}

fn assert_clean(report: &LoadReport) {
    assert_eq!(report.errors(), 0, "{:?}", report.examples);
    assert!(report.commands > 0 && report.commands_total >= report.commands);
    assert!(report.latency_us(0.5) <= report.latency_us(0.99));
    assert!(report.bytes_in > 0 && report.bytes_out > 0);
}

#[test]
fn an_open_load_sends_what_was_asked_for() {
    let Some(server) = Server::start("rate") else {
        return;
    };
    let base = config(server.tcp());
    preload(&base, &NEVER).expect("a preload");
    let load = LoadConfig { rate: Some(4000.0), pipeline: 2, threads: 2, seconds: 1.0, ..base };
    let report = run(&load).expect("a run");
    assert_clean(&report);
    assert!((100..5000).contains(&report.commands), "{}", report.commands);
    assert!(run(&LoadConfig { rate: Some(0.0), ..load }).is_err());
}

#[test]
fn every_mix_is_clean_on_a_real_server() {
    let Some(server) = Server::start("mixes") else {
        return;
    };
    for (address, value_size) in [(server.tcp(), 16), (server.unix(), 3000)] {
        let base = LoadConfig { value_size, ..config(address) };
        let report = preload(&base, &NEVER).expect("a preload");
        assert_eq!(report.commands_total, 1000);
        let mixed = Mix::Mixed { set_ratio: 0.3 };
        for mix in [Mix::Get, Mix::Set, mixed, Mix::Mget { keys: 10 }] {
            for keys in [Keys::Uniform, Keys::Zipf(0.99)] {
                let load = LoadConfig { mix, keys, threads: 2, ..base.clone() };
                assert_clean(&run(&load).expect("a run"));
                let load = LoadConfig { private_keys: true, pipeline: 64, ..load };
                assert_clean(&run(&load).expect("a run"));
            }
        }
    }
}

#[test]
fn values_larger_than_a_read_are_clean() {
    let Some(server) = Server::start("large") else {
        return;
    };
    // Few at once, and long enough: a busy machine takes its time for each.
    let few = LoadConfig { pipeline: 2, seconds: 1.5, ..config(server.tcp()) };
    let base = LoadConfig { value_size: 300_000, key_count: 20, ..few };
    preload(&base, &NEVER).expect("a preload");
    for mix in [Mix::Mixed { set_ratio: 0.5 }, Mix::Mget { keys: 3 }] {
        assert_clean(&run(&LoadConfig { mix, ..base.clone() }).expect("a run"));
    }
}

#[test]
fn a_write_by_someone_else_is_found() {
    let Some(server) = Server::start("foreign") else {
        return;
    };
    let base = config(server.tcp());
    let mine =
        LoadConfig { mix: Mix::Mixed { set_ratio: 0.5 }, private_keys: true, ..base.clone() };
    preload(&base, &NEVER).expect("a preload");
    let stranger = LoadConfig { mix: Mix::Set, connections: 1, ..base };
    let report = thread::scope(|scope| {
        scope.spawn(|| run(&stranger));
        run(&mine).expect("a run")
    });
    assert!(report.count(Fault::Ownership) > 0, "{:?}", report.examples);
}

#[test]
fn nil_is_an_error_only_once_loaded() {
    let Some(server) = Server::start("nil") else {
        return;
    };
    let base = config(server.tcp());
    let report = run(&LoadConfig { preloaded: false, ..base.clone() }).expect("a run");
    assert_clean(&report);
    let report = run(&base).expect("a run");
    assert!(report.count(Fault::Missing) > 0 && report.errors() == report.count(Fault::Missing));
}

#[test]
fn errors_of_the_server_are_counted_and_the_load_goes_on() {
    let Some(server) = Server::start("errors") else {
        return;
    };
    let mut control = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
    control.write_all(b"CONFIG SET maxmemory 1\r\n").expect("a command");
    control.read_exact(&mut [0; 5]).expect("a reply");
    let load = LoadConfig { mix: Mix::Set, ..config(server.tcp()) };
    let report = run(&load).expect("a run");
    assert_eq!(report.count(Fault::Server), report.commands_total);
    assert!(report.examples[0].contains("OOM"), "{:?}", report.examples);
    assert!(preload(&load, &NEVER).is_err());
}

#[test]
fn a_password_is_given() {
    let Some(server) = Server::start("password") else {
        return;
    };
    let mut control = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
    control.write_all(b"CONFIG SET requirepass secret\r\n").expect("a command");
    control.read_exact(&mut [0; 5]).expect("a reply");
    let with = |password: &str| LoadConfig {
        password: Some(password.to_owned()),
        preloaded: false,
        ..config(server.unix())
    };
    assert_clean(&run(&with("secret")).expect("a run"));
    assert!(run(&with("wrong")).is_err());
}

#[test]
fn a_run_stops_when_told() {
    let Some(server) = Server::start("stop") else {
        return;
    };
    let load = LoadConfig { seconds: 60.0, preloaded: false, ..config(server.unix()) };
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        run_until(&load, &stop, || ()).expect("a run")
    });
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_clean(&report);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let base = config(Address::Tcp("127.0.0.1:1".into()));
    let refused = |load: LoadConfig, field: &str| {
        let error = run(&load).expect_err(field).to_string();
        assert!(error.starts_with(field), "{error}");
    };
    refused(LoadConfig { value_size: 15, ..base.clone() }, "value_size");
    refused(LoadConfig { connections: 0, ..base.clone() }, "connections");
    refused(LoadConfig { threads: 6, ..base.clone() }, "threads");
    refused(LoadConfig { key_count: 4, private_keys: true, ..base.clone() }, "key_count");
    refused(LoadConfig { mix: Mix::Mixed { set_ratio: 2.0 }, ..base.clone() }, "mix");
    refused(LoadConfig { keys: Keys::Zipf(f64::NAN), ..base.clone() }, "zipf");
    refused(LoadConfig { seconds: f64::INFINITY, ..base }, "seconds");
}
