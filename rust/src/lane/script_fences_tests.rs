use super::*;
use crate::resp::request::{Cut, Limits, Request};

const NONCE: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
const FENCE: &str = "$32\r\n0123456789abcdef0123456789abcdef\r\n";
const HEAD: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
const NO_LOG: &str = "*0\r\n";

fn with_a_script() -> Fences {
    let mut fences = Fences::new("x".into());
    let mut request = Request::default();
    let line = b"EVAL return 0 1 k\n";
    assert!(matches!(request.cut(line, Limits::NONE), Ok(Cut::Complete(_))));
    let means = Means { rules: &[], password: b"pw", nonce: NONCE };
    let (mut out, script) = (Vec::new(), b"return 0".as_slice());
    fences.push(&mut out, script.into(), request.args(line), &[b"~k".to_vec()], &means, 0);
    assert!(out.ends_with(b"*3\r\n$3\r\nACL\r\n$3\r\nLOG\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n"));
    fences
}

fn ran(reply: &str, log: &str) -> String {
    format!("{HEAD}*6\r\n+OK\r\n+OK\r\n{reply}+OK\r\n{FENCE}{log}")
}

/// The reply that the client gets, or another outcome.
fn went(bytes: &str) -> Result<String, Broken> {
    let mut fences = with_a_script();
    for have in 0..bytes.len() {
        assert!(fences.cut(&bytes.as_bytes()[..have], 0)?.is_none(), "{have}");
    }
    let block = fences.cut(format!("{bytes}+NEXT\r\n").as_bytes(), 0)?.expect("all is there");
    assert_eq!((block.length, fences.room()), (bytes.len(), ABREAST));
    assert_eq!(
        block.command,
        b"*5\r\n$4\r\nEVAL\r\n$6\r\nreturn\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\nk\r\n"
    );
    Ok(match block.outcome {
        Outcome::Reply(range) => bytes[range].into(),
        Outcome::NotRun(range) => format!("not run {}", &bytes[range]),
        Outcome::Strayed(range) => format!("strayed {}", &bytes[range]),
        Outcome::Malformed(told) => format!("malformed {}", String::from_utf8_lossy(&told)),
    })
}

#[test]
fn a_script_has_the_reply_inside() {
    for reply in [":1\r\n", "$1\r\na\r\n", "*2\r\n:1\r\n*0\r\n", "-ERR x\r\n", "$-1\r\n"] {
        assert_eq!(went(&ran(reply, NO_LOG)), Ok(reply.into()));
    }
}

#[test]
fn what_is_forged_ends_at_the_fence() {
    let malformed = format!("malformed {}", String::from_utf8_lossy(MALFORMED));
    for reply in ["+a\r\n+FORGED\r\n", "", "$100000\r\n", "+a\r\n*5\r\n", "?\r\n"] {
        assert_eq!(went(&ran(reply, NO_LOG)), Ok(malformed.clone()), "{reply}");
    }
    for (reply, told) in [
        ("-a\r\n*0\r\n", "-a  *0\r\n"),
        ("-a\r\n-BUSY\r\n", "-a  -BUSY\r\n"),
        ("-a\r\n+OK\r\n*3\r\n", "-a  +OK  *3\r\n"),
    ] {
        assert_eq!(went(&ran(reply, NO_LOG)), Ok(format!("malformed {told}")), "{reply}");
    }
    for reply in ["-a\rX\r\n", "-a\nX\r\n"] {
        assert_eq!(went(&ran(reply, NO_LOG)), Ok(reply.into()));
    }
}

#[test]
fn what_the_guard_was_refused_is_seen() {
    let entry = |user: &str| format!("*1\r\n*2\r\n$8\r\nusername\r\n${}\r\n{user}\r\n", user.len());
    let own = entry("threadis-guard-x-0");
    assert_eq!(went(&ran(":1\r\n", &own)), Ok(format!("strayed {own}")));
    assert_eq!(went(&ran(":1\r\n", &entry("someone"))), Ok(":1\r\n".into()));
    let forged = format!("-a\r\n+OK\r\n*3\r\n{}", entry("someone"));
    assert_eq!(went(&ran(&forged, &own)), Ok(format!("strayed {own}")));
}

#[test]
fn a_guard_that_could_not_be_set_up_guards_nothing() {
    let bytes = format!("{HEAD}*6\r\n-ERR x\r\n-WRONGPASS x\r\n:1\r\n+OK\r\n{FENCE}{NO_LOG}");
    let malformed = format!("malformed {}", String::from_utf8_lossy(MALFORMED));
    assert_eq!(went(&bytes), Ok(malformed));
}

#[test]
fn one_that_has_not_run_says_why() {
    let busy = "-BUSY x\r\n";
    let aborted = "-EXECABORT x\r\n";
    let refused = format!("+OK\r\n{busy}+QUEUED\r\n{busy}+QUEUED\r\n{busy}{busy}{aborted}");
    assert_eq!(went(&refused), Ok(format!("not run {busy}")));
    assert_eq!(went(&format!("{HEAD}{aborted}")), Ok(format!("not run {aborted}")));
}

#[test]
fn what_no_server_says_breaks_the_lane() {
    for bytes in ["-BUSY x\r\n", ":1\r\n", "+OK\r\n+OK\r\n", &"+".repeat(LINE_LIMIT)] {
        assert!(with_a_script().cut(bytes.as_bytes(), 0).is_err(), "{bytes}");
    }
    let mut fences = with_a_script();
    assert!(matches!(fences.cut(ran(":1\r\n", NO_LOG).as_bytes(), 0), Ok(Some(_))));
    assert!(fences.cut(b"+stray\r\n", 0).is_err());
}

#[test]
fn guards_go_on_to_the_next_lane_but_not_under_names_in_doubt() {
    let fences = with_a_script();
    let doubtful = fences.guards[fences.flights[0].guard].name.clone();
    let fences = fences.renewed();
    assert_eq!((fences.room(), fences.is_idle()), (ABREAST, true));
    assert!(fences.guards.iter().all(|guard| guard.name != doubtful));
    assert_eq!(fences.guards.iter().filter(|guard| guard.name.ends_with(b"-1")).count(), 1);
}

#[test]
fn each_in_flight_has_a_guard_of_its_own() {
    let mut fences = with_a_script();
    let mut names = vec![fences.guards[fences.flights[0].guard].name.clone()];
    let request = Request::default();
    let means = Means { rules: &[], password: b"", nonce: NONCE };
    while fences.room() > 0 {
        let (mut out, script) = (Vec::new(), b"x".as_slice().into());
        fences.push(&mut out, script, request.args(b""), &[], &means, 0);
        let flight = fences.flights.back().expect("just pushed");
        names.push(fences.guards[flight.guard].name.clone());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ABREAST);
}
