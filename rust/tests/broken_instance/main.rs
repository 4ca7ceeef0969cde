//! What a broken instance does to its lane, and to nobody else.
//!
//! No stock server can be made to send these bytes, so a scripted one does. Two clients wait on
//! one lane; each row says what the instance writes, and what each of the two reads.

mod allocations;
mod client;
mod commits;
mod harness;
mod looks;

use harness::{CLIENT_MEMORY, Proxy, Script};
use std::sync::atomic::Ordering::SeqCst;

const LOST: &[u8] =
    b"-ERR instance 0 was lost before it answered; the command may or may not have run\r\n";
const A: &[u8] = b"$1\r\na\r\n";
const B: &[u8] = b"$1\r\nb\r\n";

/// The first client asks for `a`, then the second for `b`, on the same lane.
fn two_clients(name: &str, script: Script, first: &[u8], second: &[u8], connections: usize) {
    let proxy = Proxy::start(vec![vec![script]]);
    let instance = &proxy.instances[0];
    let (mut one, mut two) = (proxy.client(), proxy.client());
    one.send(&[b"GET", b"a"]);
    instance.wait_for(1);
    two.send(&[b"GET", b"b"]);
    one.expect(first, name);
    two.expect(second, name);
    for (client, key, reply) in [(&mut one, b"a", A), (&mut two, b"b", B)] {
        client.send(&[b"GET", key]);
        client.expect(reply, &format!("{name}, afterwards"));
    }
    assert_eq!(instance.connections.load(SeqCst), connections, "{name}");
}

#[test]
fn what_is_no_reply_breaks_the_lane_and_only_what_is_in_flight() {
    for bytes in [
        b"$x\r\n".as_slice(),
        b"$-2\r\n",
        b"$01\r\n1\r\n",
        b"$+1\r\na\r\n",
        b"$ 1\r\na\r\n",
        b"$18446744073709551616\r\n",
        b"$9223372036854775807\r\n",
        b"$4294967297\r\n",
        b"*9223372036854775807\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"$1\r\nabc\r\n",
        b"$2\r\na\r\n$1\r\nb\r\n",
        b"+a\rb\r\n",
        b"+OK\rX",
        b"?\r\n",
        b"\0\0\0\0\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\r\n",
        b"\n",
        b">2\r\n+a\r\n+b\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    ] {
        let name = bytes.escape_ascii().to_string();
        two_clients(&name, Script::writes(bytes), LOST, LOST, 2);
        // The first reply is good; the lane breaks behind it.
        two_clients(&name, Script::writes(&[A, bytes].concat()), A, LOST, 2);
    }
}

#[test]
fn an_end_in_the_middle_fails_what_is_in_flight() {
    for bytes in [
        b"".as_slice(),
        b"$",
        b"$100\r",
        b"$100\r\nabc",
        b"*2\r\n$1\r\nx\r\n",
        b"+O",
        b"%1\r\n+k\r\n",
        b"|1\r\n+ttl\r\n:3\r\n",
        &b"*1\r\n".repeat(10_000),
        b"$4000000000\r\nthe length is a lie",
    ] {
        let name = bytes[..bytes.len().min(40)].escape_ascii().to_string();
        let hangs_up = |bytes: &[u8]| Script { hangs_up: true, ..Script::writes(bytes) };
        two_clients(&name, hangs_up(bytes), LOST, LOST, 2);
        two_clients(&name, hangs_up(&[A, bytes].concat()), A, LOST, 2);
    }
}

#[test]
fn a_reply_that_nobody_waits_for_breaks_the_lane() {
    for stray in [A, b"+OK\r\n", b"-ERR x\r\n", b"$", b"\r\n", b">1\r\n+a\r\n"] {
        let name = format!("stray {}", stray.escape_ascii());
        two_clients(&name, Script::writes(&[A, B, stray].concat()), A, B, 2);
    }
}

#[test]
fn two_replies_for_one_cost_the_lane_not_the_next_client() {
    let script = Script { after: 1, ..Script::writes(&[A, b"$6\r\nforged\r\n"].concat()) };
    let proxy = Proxy::start(vec![vec![script]]);
    let (mut one, mut two) = (proxy.client(), proxy.client());
    one.send(&[b"GET", b"a"]);
    one.expect(A, "its own reply");
    for _ in 0..3 {
        two.send(&[b"GET", b"b"]);
        two.expect(B, "never the forged one");
    }
    assert_eq!(proxy.instances[0].connections.load(SeqCst), 2);
}

#[test]
fn errors_are_for_their_client_and_change_nothing() {
    for error in [
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n".as_slice(),
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-BUSY Redis is busy running a script\r\n",
        b"-MISCONF Redis is configured to save RDB snapshots\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-ASK 1 127.0.0.1:1\r\n",
        b"-TRYAGAIN x\r\n",
        b"-\r\n",
    ] {
        let name = error.escape_ascii().to_string();
        two_clients(&name, Script::writes(&[error, B].concat()), error, B, 1);
    }
}

#[test]
fn replies_of_every_type_pass_in_any_pieces() {
    let replies = b"*2\r\n*2\r\n:1\r\n$-1\r\n~1\r\n#t\r\n%1\r\n+k\r\n,1.5\r\n";
    let (first, second) = replies.split_at(25);
    for at in 1..replies.len() {
        let pieces = vec![replies[..at].to_vec(), replies[at..].to_vec()];
        two_clients("types", Script { pieces, ..Script::writes(b"") }, first, second, 1);
    }
}

#[test]
fn an_opening_that_is_refused_is_nobodys_reply() {
    for opening in [b"-ERR max number of clients reached\r\n".as_slice(), b"?\r\n", b"$1\r\na\r\n"]
    {
        let script = Script { opening: opening.to_vec(), ..Script::writes(b"") };
        let proxy = Proxy::start(vec![vec![script]]);
        let mut client = proxy.client();
        client.send(&[b"GET", b"a"]);
        client.expect(b"-TRYAGAIN instance 0 was lost; the command was not run\r\n", "not run");
        client.send(&[b"GET", b"a"]);
        client.expect(A, "a fresh lane");
    }
}

#[test]
fn half_of_a_large_reply_is_the_end_of_that_client_only() {
    let mut half = b"$1000000\r\n".to_vec();
    half.resize(500_000, b'x');
    let script = Script { hangs_up: true, ..Script::writes(&half) };
    let proxy = Proxy::start(vec![vec![script]]);
    let instance = &proxy.instances[0];
    let (mut one, mut two) = (proxy.client(), proxy.client());
    one.send(&[b"GET", b"a"]);
    instance.wait_for(1);
    two.send(&[b"GET", b"b"]);
    let rest = one.rest();
    assert!(rest.len() <= half.len(), "no error text within a value");
    assert!(half.starts_with(&rest) || rest == LOST, "{}", rest.len());
    two.expect(LOST, "the one behind it");
    two.send(&[b"GET", b"b"]);
    two.expect(B, "a fresh lane");
}

#[test]
fn a_merged_reply_is_whole_or_an_error() {
    // Whole replies leave the lane as it was; behind half of one, or none, nothing else can come.
    for (bytes, hangs_up) in [
        (b"*2\r\n$1\r\n".as_slice(), true),
        (b"*1\r\n$1\r\na\r\n", false),
        (b"+OK\r\n", false),
        (b"*x\r\n", true),
        (b"", true),
    ] {
        let broken = Script { after: 1, hangs_up, ..Script::writes(bytes) };
        let proxy = Proxy::start(vec![Vec::new(), vec![broken]]);
        let mut client = proxy.client();
        let keys: Vec<_> = (0..20).map(|number| number.to_string().into_bytes()).collect();
        let mget: Vec<&[u8]> =
            std::iter::once(b"MGET".as_slice()).chain(keys.iter().map(Vec::as_slice)).collect();
        client.send(&mget);
        client.send(&[b"PING"]);
        client.expect(b"-ERR ", "an error, not part of the values");
        let mut whole = format!("*{}\r\n", keys.len()).into_bytes();
        for key in &keys {
            _core::resp::request::push_bulk(&mut whole, key);
        }
        let mut after = proxy.client();
        after.send(&mget);
        after.expect(&whole, "a fresh lane");
    }
}

#[test]
fn replies_that_wait_behind_a_slow_one_count_against_their_client() {
    let key_of = |instance: usize, length: usize| {
        let tag = (0..100).map(|number| format!("{{{number}}}")).find(|tag| {
            _core::routing::slots::slot(tag.as_bytes()) * 2 / _core::routing::slots::SLOTS
                == instance
        });
        let mut key = tag.expect("half of all").into_bytes();
        key.resize(length, b'x');
        key
    };
    let (slow, large, small) = (key_of(0, 10), key_of(1, 100_000), key_of(1, 10));
    for command in [vec![b"GET".as_slice(), &large], vec![b"MGET".as_slice(), &large, &slow]] {
        let never = Script { after: usize::MAX, ..Script::writes(b"") };
        let proxy = Proxy::start(vec![vec![never], Vec::new()]);
        let (mut greedy, mut other) = (proxy.client(), proxy.client());
        greedy.send(&[b"GET", &slow]);
        let times = 3 * CLIENT_MEMORY / large.len();
        let taken = greedy.send_often(&command, times);
        assert!(taken < times, "it is not read on while so much waits for it");
        other.send(&[b"GET", &small]);
        let mut reply = Vec::new();
        _core::resp::request::push_bulk(&mut reply, &small);
        other.expect(&reply, "the others go on");
    }
}
