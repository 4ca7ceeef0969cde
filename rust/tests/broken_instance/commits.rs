//! A write over two instances, one of which does not do what it should at EXEC. All else they answer
//! with `+OK`, also what they queue.

use crate::harness::Proxy;
use _core::threads::letters::Unsettled;
use std::sync::atomic::Ordering::SeqCst;

/// SELECT, MSET, SELECT, and what is done to the record.
const RAN: &[u8] = b"*4\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n";
/// Keys of both instances: `b` lives on the first, `a` on the second.
const MSET: [&[u8]; 5] = [b"MSET", b"a", b"1", b"b", b"2"];

/// What the client hears, if anything, and what the coordinator does.
fn write(first: &[u8], second: &[u8], reply: Option<&[u8]>) -> (usize, Vec<Unsettled>) {
    let proxy = Proxy::start(vec![Vec::new(), Vec::new()]);
    *proxy.instances[0].exec.lock().expect("no panic") = first.to_vec();
    *proxy.instances[1].exec.lock().expect("no panic") = second.to_vec();
    let told = proxy.ask(&MSET, reply);
    (told.commands, told.unsettled)
}

#[test]
fn a_write_that_all_do_is_answered() {
    let (commands, unsettled) = write(RAN, RAN, Some(b"+OK\r\n"));
    assert!(commands == 0 && unsettled.is_empty());
}

#[test]
fn half_of_a_stray_reply_is_the_end_of_a_lane() {
    let proxy = Proxy::start(vec![Vec::new(), Vec::new()]);
    *proxy.instances[0].exec.lock().expect("no panic") = RAN.to_vec();
    *proxy.instances[1].exec.lock().expect("no panic") = [RAN, b"+O"].concat();
    let mut client = proxy.client();
    for connections in 1..4 {
        client.send(&MSET);
        client.expect(b"+OK\r\n", "MSET");
        let found = [0, 1].map(|at: usize| proxy.instances[at].connections.load(SeqCst));
        assert_eq!(found, [1, connections]);
    }
}

#[test]
fn what_was_not_decided_is_done_by_the_coordinator() {
    for refusal in [&b"-EXECABORT no\r\n"[..], b"*-1\r\n", b"+OK\r\n"] {
        let (commands, unsettled) = write(refusal, RAN, None);
        assert_eq!((commands, unsettled.len()), (1, 1));
        assert_eq!((unsettled[0].token, unsettled[0].first), (None, 0));
        assert_eq!((&unsettled[0].others[..], unsettled[0].lanes.len()), (&[1][..], 0));
    }
}

#[test]
fn what_may_have_been_decided_is_settled_under_its_lock() {
    let lost =
        b"-ERR instance 0 was lost before it answered; the command may or may not have run\r\n";
    let (commands, unsettled) = write(b"", RAN, Some(lost));
    assert_eq!((commands, unsettled.len()), (0, 1));
    assert!(unsettled[0].token.is_some());
    assert_eq!(unsettled[0].lanes.iter().map(|lane| lane.0).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_was_decided_is_completed_under_its_lock() {
    let lost = b"-ERR instance 1 was lost during a write to several instances; \
        it will be completed when it is back\r\n";
    for broken in [&b""[..], b"-EXECABORT no\r\n", b"$x\r\n"] {
        let (commands, unsettled) = write(RAN, broken, Some(lost));
        assert_eq!((commands, unsettled.len()), (0, 1));
        assert!(unsettled[0].token.is_some());
        assert_eq!(&unsettled[0].others[..], [1]);
    }
}
