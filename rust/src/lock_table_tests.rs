//! Who holds which keys, and who waits.

use super::*;

fn want(keys: &[(Fingerprint, bool)]) -> Want {
    Want {
        keys: keys.to_vec(),
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
