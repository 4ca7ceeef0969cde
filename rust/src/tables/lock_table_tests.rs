//! Which locks hold which keys, and which ones wait.

use super::*;
use crate::tables::lock::Holder;

fn want(keys: &[(Fingerprint, bool)]) -> Want {
    let mut keys = keys.to_vec();
    in_order(&mut keys);
    Want {
        keys,
        everything: false,
        instances: Vec::new(),
        holder: Holder::Coordinator,
        is_told: true,
        spares_doubts: false,
    }
}

fn tokens(begun: &[Arc<Lock>]) -> Vec<u64> {
    begun.iter().map(|lock| lock.token).collect()
}

#[test]
fn locks_are_granted_in_order_of_arrival() {
    let (a, b, c, d) = (1, 2, 3, 4);
    let mut table = Inner::default();
    let everything = Want { everything: true, ..want(&[]) };
    let wanted = [
        want(&[(a, false)]),
        want(&[(a, false)]),
        want(&[(a, true), (b, false)]),
        want(&[(b, false)]),
        want(&[(b, true)]),
        want(&[(a, false), (b, false)]),
        want(&[(c, true), (c, false)]),
        everything,
        want(&[(d, false)]),
    ];
    let begun: Vec<u64> =
        wanted.into_iter().filter_map(|one| table.ask(one, 1).1.map(|lock| lock.token)).collect();
    assert_eq!(begun, [1, 2, 4, 7]); // 6 shares with these, but 3 and 5 are older
    for (token, then) in [
        (1, vec![]),
        (2, vec![3]),
        (3, vec![]),
        (4, vec![5]),
        (7, vec![]),
        (5, vec![6]),
        (6, vec![8]), // on everything: alone
        (8, vec![9]),
        (9, vec![]),
    ] {
        assert_eq!(tokens(&table.release(token)), then, "{token}");
    }
    assert!(table.entries.is_empty() && table.lines.is_empty() && table.waiting.is_empty());
}

#[test]
fn keys_in_doubt_are_not_waited_for() {
    let mut table = Inner::default();
    let (a, b) = (1, 2);
    let everything = Want { everything: true, ..want(&[]) };
    let spares = Want { spares_doubts: true, everything: true, ..want(&[]) };
    let wanted = [
        want(&[(a, true), (b, true)]),
        want(&[(a, false)]),
        want(&[(b, false)]),
        want(&[(a, true), (b, true)]),
        spares,
        everything,
    ];
    let begun = wanted.map(|one| table.ask(one, 1).1.is_some());
    assert_eq!(begun, [true, false, false, false, false, false]);
    let (lock, begun) = table.doubt(1, vec![(b, true)], 7).expect("it is held");
    assert_eq!((lock.doubt, tokens(&begun)), (Some(7), vec![2]));
    let waits = [2, 3, 4, 5, 6].map(|token| table.waits_for(token));
    assert_eq!(waits, [None, Some(7), Some(7), None, Some(7)]);
    for (token, then) in [(3, vec![]), (4, vec![]), (2, vec![5]), (5, vec![]), (1, vec![6])] {
        assert_eq!(tokens(&table.release(token)), then, "{token}");
    }
}

#[test]
fn who_gives_up_lets_those_behind_go_on() {
    let mut table = Inner::default();
    let key = 1;
    let wanted = [want(&[(key, false)]), want(&[(key, true)]), want(&[(key, false)])];
    let begun = wanted.map(|one| table.ask(one, 1).1.is_some());
    assert_eq!(begun, [true, false, false]);
    assert_eq!(tokens(&table.release(2)), [3]);
    assert!(table.release(2).is_empty());
}

/// The request for a lock that workers are not notified of.
fn passing(keys: &[(Fingerprint, bool)]) -> Want {
    Want { is_told: false, ..want(keys) }
}

#[test]
fn those_who_pass_wait_only_for_those_who_look_first_and_write_then() {
    let (a, b) = (1, 2);
    let mut table = Inner::default();
    let wanted = [
        passing(&[(a, false)]),
        passing(&[(a, false), (b, true)]),
        passing(&[(b, true)]), // one alone
        want(&[(a, false)]),   // would see what is not written yet
        want(&[(a, false)]),
        passing(&[(a, false)]),
        passing(&[(a, false)]),
        want(&[(a, true)]),
    ];
    let begun: Vec<u64> =
        wanted.into_iter().filter_map(|one| table.ask(one, 1).1.map(|lock| lock.token)).collect();
    assert_eq!(begun, [1, 2]);
    for (token, then) in [
        (1, vec![]),
        (2, vec![4, 5, 3]),
        (4, vec![]),
        (5, vec![6, 7]),
        (7, vec![]),
        (3, vec![]),
        (6, vec![8]),
        (8, vec![]),
    ] {
        assert_eq!(tokens(&table.release(token)), then, "{token}");
    }
    assert!(table.entries.is_empty() && table.lines.is_empty());
}

#[test]
fn who_passes_is_let_through_where_another_kind_stood_between() {
    let mut table = Inner::default();
    let wanted = [passing(&[(1, false)]), want(&[(1, false)]), passing(&[(1, false)])];
    let begun = wanted.map(|one| table.ask(one, 1).1.is_some());
    assert_eq!(begun, [true, false, false]);
    assert_eq!(tokens(&table.release(2)), [3]);
    let large_and_passing = Want { is_told: false, ..large(0) };
    assert!(table.ask(large_and_passing, 1).1.is_some_and(|lock| lock.is_large));
    assert!(table.ask(passing(&[(4, false)]), 1).1.is_some());
    assert!(table.ask(want(&[(5, false)]), 1).1.is_none());
}

/// A lock on so many keys that it is in no line, exclusive for every third.
fn large(first: Fingerprint) -> Want {
    want(&(first..first + 1000).map(|key| (key, key % 3 == 0)).collect::<Vec<_>>())
}

#[test]
fn large_locks_wait_and_are_waited_for_like_others() {
    let mut table = Inner::default();
    let everything = Want { everything: true, ..want(&[]) };
    let wanted = [
        want(&[(3, false), (1200, true)]),
        want(&[(4, false)]),
        large(0),
        want(&[(5, false)]),
        want(&[(6, false)]),
        large(999),
        want(&[(1990, true)]),
        large(5000),
        everything,
        large(0),
    ];
    let begun: Vec<u64> =
        wanted.into_iter().filter_map(|one| table.ask(one, 1).1.map(|lock| lock.token)).collect();
    // 5 has no key in common with 1, but waits for 3, which has one of its keys exclusively.
    assert_eq!(begun, [1, 2, 4, 8]);
    for (token, then) in [
        (2, vec![]),
        (1, vec![3]),
        (4, vec![]),
        (3, vec![5, 6]), // both waited for it
        (6, vec![7]),
        (5, vec![]),
        (8, vec![]),
        (7, vec![9]),
        (9, vec![10]),
        (10, vec![]),
    ] {
        assert_eq!(tokens(&table.release(token)), then, "{token}");
    }
    assert!(table.entries.is_empty() && table.lines.is_empty() && table.large.is_empty());
}

#[test]
fn large_locks_and_keys_in_doubt() {
    let mut table = Inner::default();
    let everything = Want { everything: true, ..want(&[]) };
    let wanted = [large(0), want(&[(3, false)]), want(&[(6, false)]), large(6), large(9)];
    let begun = wanted.map(|one| table.ask(one, 1).1.is_some());
    assert_eq!(begun, [true, false, false, false, false]);
    let (lock, begun) = table.doubt(1, vec![(6, true), (3, true)], 7).expect("it is held");
    assert_eq!((lock.doubt, tokens(&begun)), (Some(7), vec![]));
    assert_eq!([2, 3, 4, 5].map(|token| table.waits_for(token)), [Some(7), Some(7), Some(7), None]);
    assert!(table.release(3).is_empty());
    assert_eq!(tokens(&table.release(1)), [2, 4]);
    assert_eq!(tokens(&table.release(4)), [5]);
    assert!(table.release(2).is_empty() && table.release(5).is_empty());

    let (token, begun) = table.ask(everything, 1);
    assert!(begun.is_some() && table.ask(large(0), 1).1.is_none());
    assert!(table.ask(large(2000), 1).1.is_none());
    let (_, begun) = table.doubt(token, vec![(3, true)], 7).expect("it is held");
    assert_eq!(tokens(&begun), [token + 2]);
    assert_eq!(table.waits_for(token + 1), Some(7));
    assert_eq!(tokens(&table.release(token)), [token + 1]);
}
