//! Replies of several instances.

use super::{is_one_reply, numbers};
use crate::catalog::merge_kind::Merge;
use crate::resp::reply::{aggregate, integer, is_error, split_first, text};
use crate::routing::merge::Merging;
use crate::routing::scan_cursor::{decode, rewrite};

const KINDS: [Merge; 9] = [
    Merge::Sum,
    Merge::Min,
    Merge::Max,
    Merge::And,
    Merge::Or,
    Merge::AllSucceeded,
    Merge::OneSucceeded,
    Merge::Concat,
    Merge::Keyed,
];

/// Whole replies become one whole reply: how, how many bytes name the instance of a key, those, and the
/// replies with `&` between them.
pub(super) fn merge(data: &[u8]) {
    let Some(([kind, count], rest)) = numbers(data) else { return };
    let Some((order, replies)) = rest.split_at_checked(count % 8) else { return };
    let replies: Vec<&[u8]> = replies.split(|&byte| byte == b'&').collect();
    if !replies.iter().all(|reply| is_one_reply(reply)) {
        return;
    }
    let kind = KINDS[kind % KINDS.len()];
    let order: Vec<u16> = order
        .iter()
        .map(|byte| u16::from(byte.wrapping_sub(b'0')) % u16::try_from(replies.len()).expect("few"))
        .collect();
    let keys = order.len();
    let mut merging = Merging::new(kind, replies.len(), replies.len(), order);
    let mut out = b"+before\r\n".to_vec();
    for (instance, reply) in replies.iter().enumerate() {
        assert_eq!(merging.add(instance, reply, &mut out), instance + 1 == replies.len());
    }
    let merged = out.strip_prefix(b"+before\r\n").expect("what was there stays");
    assert!(is_one_reply(merged), "{}", merged.escape_ascii());
    if is_error(merged) {
        return;
    }
    match kind {
        Merge::Sum => {
            let numbers = replies.iter().map(|reply| integer(reply).expect("an integer"));
            assert_eq!(integer(merged), Some(numbers.sum::<i64>()));
        }
        Merge::Concat => {
            let (kind, count, elements) = aggregate(merged).expect("an aggregate");
            let parts = replies.iter().map(|reply| aggregate(reply).expect("an aggregate"));
            assert!(parts.clone().all(|part| part.0 == kind));
            assert_eq!(count, parts.clone().map(|part| part.1).sum::<usize>());
            assert_eq!(elements, parts.map(|part| part.2).collect::<Vec<_>>().concat());
        }
        Merge::Keyed => {
            assert_eq!(aggregate(merged).map(|found| found.1), Some(keys));
            let parts = replies.iter().map(|reply| aggregate(reply).expect("an aggregate"));
            let elements = |(kind, count, _)| if kind == b'%' { 2 * count } else { count };
            assert_eq!(parts.map(elements).sum::<usize>(), keys, "all are there");
        }
        _ => {}
    }
}

/// A cursor names an instance that there is; an instance's reply stays one reply, and its cursor leads
/// back to it: how many instances, which, and the cursor of a client, `&`, the instance's reply.
pub(super) fn scan(data: &[u8]) {
    let Some(([instances, instance], rest)) = numbers(data) else { return };
    let instances = instances % 100 + 1;
    let instance = instance % instances;
    let mut both = rest.splitn(2, |&byte| byte == b'&');
    let (Some(cursor), Some(reply)) = (both.next(), both.next()) else { return };
    if let Some((found, _)) = decode(cursor, instances) {
        assert!(found < instances);
    }
    if !is_one_reply(reply) {
        return;
    }
    let rewritten = rewrite(reply, instance, instances);
    assert!(is_one_reply(&rewritten), "{}", rewritten.escape_ascii());
    if is_error(&rewritten) {
        return;
    }
    let cursor_of = |reply: &[u8]| -> Vec<u8> {
        let (_, _, elements) = aggregate(reply).expect("an aggregate");
        text(split_first(elements).expect("elements").0).expect("a text").to_vec()
    };
    let number: u64 = String::from_utf8(cursor_of(reply)).expect("digits").parse().expect("digits");
    match (number, &cursor_of(&rewritten)[..]) {
        (0, b"0") => assert_eq!(instance + 1, instances),
        (0, next) => assert_eq!(decode(next, instances), Some((instance + 1, 0))),
        (_, own) if number < (1 << 56) / 100 => {
            assert_eq!(decode(own, instances), Some((instance, number)));
        }
        _ => {}
    }
}
