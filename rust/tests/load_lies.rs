//! The load generator against a server that lies: every lie is found and has its name.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use _core::load::value::{Stamp, Values};
use _core::load::{Address, Fault, Keys, LoadConfig, LoadReport, Mix, run};

/// Answers the first batch of one client, of two GETs in a pipeline, with `answer`.
fn liar(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = vec![0; 2 * REQUEST];
        stream.read_exact(&mut request).expect("two requests");
        stream.write_all(&answer(&request)).expect("an answer");
        let _ = stream.read(&mut request);
    });
    Address::Tcp(address)
}

const REQUEST: usize = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n".len();

/// The reply to the GET in `request`, as a preload would have written it.
fn honest(request: &[u8]) -> Vec<u8> {
    let key = std::str::from_utf8(&request[REQUEST - 14..REQUEST - 2]).expect("digits");
    let key = key.parse().expect("a number");
    let mut reply = b"$16\r\n".to_vec();
    let stamp = Stamp { key, client: 9, sequence: 1 };
    Values::new(16).append(stamp, &mut reply);
    reply.extend_from_slice(b"\r\n");
    reply
}

/// One batch of two GETs.
fn lied_to(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> LoadReport {
    let config = LoadConfig {
        nodes: vec![liar(answer)],
        connections: 1,
        pipeline: 2,
        value_size: 16,
        mix: Mix::Get,
        batches: Vec::new(),
        key_count: 1000,
        keys: Keys::Uniform,
        rate: None,
        seconds: 0.0001,
        warmup: 0.0,
        threads: 1,
        password: None,
        seed: 1,
        cpus: Vec::new(),
        private_keys: false,
        preloaded: true,
    };
    run(&config).expect("a run")
}

#[test]
fn each_lie_has_its_name() {
    let swapped = lied_to(|both| [honest(&both[REQUEST..]), honest(both)].concat());
    assert_eq!(swapped.count(Fault::Order), 2, "{:?}", swapped.examples);

    let foreign = lied_to(|both| {
        let mut other = both.to_vec();
        other[REQUEST - 3] = if other[REQUEST - 3] == b'9' { b'0' } else { other[REQUEST - 3] + 1 };
        [honest(&other), honest(&both[REQUEST..])].concat()
    });
    assert_eq!(foreign.count(Fault::Ownership), 1, "{:?}", foreign.examples);

    let garbled = lied_to(|both| [b"$16\r\n0123456789abcdef\r\n".to_vec(), honest(both)].concat());
    assert!(garbled.count(Fault::Ownership) >= 1, "{:?}", garbled.examples);

    let typed = lied_to(|both| [b"+OK\r\n".to_vec(), honest(&both[REQUEST..])].concat());
    assert_eq!(typed.count(Fault::Protocol), 1, "{:?}", typed.examples);

    let broken = lied_to(|_| b"hello\r\n".to_vec());
    assert_eq!((broken.count(Fault::Protocol), broken.count(Fault::Unanswered)), (1, 2));

    let extra =
        lied_to(|both| [honest(both), honest(&both[REQUEST..]), b"+OK\r\n".to_vec()].concat());
    assert_eq!(extra.count(Fault::Protocol), 1, "{:?}", extra.examples);
}
