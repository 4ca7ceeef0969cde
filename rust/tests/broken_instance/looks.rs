//! BLPOP of two keys, of which the first is empty; the instance of the second does not do what it should.

use crate::harness::Proxy;
use _core::threads::letters::Unsettled;

/// `b` lives on the first instance, `a` on the second.
const BLPOP: [&[u8]; 4] = [b"BLPOP", b"b", b"a", b"0"];
const NOTHING: &[u8] = b"*1\r\n*-1\r\n";
const LOST: &[u8] =
    b"-ERR instance 1 was lost before it answered; the command may or may not have run\r\n";

/// What the client hears, if anything; what the coordinator is told to settle, and how many locks are
/// left. If the client hears nothing, the coordinator has its command.
fn pop(usage: &[u8], exec: &[u8], reply: Option<&[u8]>) -> (Vec<Unsettled>, usize) {
    let proxy = Proxy::start(vec![Vec::new(), Vec::new()]);
    *proxy.instances[0].exec.lock().expect("no panic") = NOTHING.to_vec();
    *proxy.instances[1].usage.lock().expect("no panic") = usage.to_vec();
    *proxy.instances[1].exec.lock().expect("no panic") = exec.to_vec();
    let mut told = proxy.ask(&BLPOP, reply);
    // The worker has ended the lock before it answers somebody else: the first key is nobody's.
    let mut other = proxy.client();
    other.send(&[b"GET", b"b"]);
    other.expect(b"$1\r\nb\r\n", "GET");
    proxy.tell(&BLPOP, &mut told);
    assert_eq!(told.commands, usize::from(reply.is_none()));
    (told.unsettled, proxy.locks())
}

#[test]
fn what_is_there_is_taken() {
    let found = b"*2\r\n$1\r\na\r\n$1\r\nx\r\n";
    let (unsettled, locks) = pop(b":56\r\n", &[b"*1\r\n", &found[..]].concat(), Some(found));
    assert_eq!((unsettled.len(), locks), (0, 0));
    let wrong = b"-WRONGTYPE no list\r\n";
    let (unsettled, locks) = pop(b":56\r\n", &[b"*1\r\n", &wrong[..]].concat(), Some(wrong));
    assert_eq!((unsettled.len(), locks), (0, 0));
}

#[test]
fn where_nothing_was_taken_the_coordinator_goes_on() {
    let usage: [&[u8]; 6] =
        [b"$-1\r\n", b"-LOADING\r\n", b"+OK\r\n", b"*0\r\n", b"$x\r\n", b"$-1\r\n$-1\r\n"];
    let cases = usage.map(|usage| (usage, NOTHING));
    let refused = [NOTHING, b"-EXECABORT no\r\n"].map(|exec| (&b":56\r\n"[..], exec));
    for (usage, exec) in cases.into_iter().chain(refused) {
        let (unsettled, locks) = pop(usage, exec, None);
        assert_eq!((unsettled.len(), locks), (0, 0), "{}", usage.escape_ascii());
    }
}

#[test]
fn what_may_have_been_taken_is_locked_until_that_is_settled() {
    for exec in [&b""[..], b"$x\r\n", b"+OK\r\n", b":1\r\n"] {
        let (unsettled, locks) = pop(b":56\r\n", exec, Some(LOST));
        assert_eq!((unsettled.len(), locks), (1, 1), "{}", exec.escape_ascii());
        assert!(unsettled[0].token.is_some());
        assert_eq!(unsettled[0].lanes.iter().map(|lane| lane.0).collect::<Vec<_>>(), [1]);
    }
}
