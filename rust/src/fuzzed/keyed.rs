//! Where keys are, and where they live.

use super::{numbers, words};
use crate::base::number::parse_i64;
use crate::catalog::key_specs::{Begin, Find, KeySpec, all};
use crate::resp::request::{push_command, with_args};
use crate::routing::placement::{Placement, Rule};
use crate::routing::slots::{SLOTS, SlotMap, slot};

/// Keys are arguments, in order, and as many as the command says: seven numbers of the specification, and
/// the words.
pub(super) fn keys(data: &[u8]) {
    let Some(([kind, index, last, step, limit, number, first], text)) = numbers(data) else {
        return;
    };
    let signed = |number: usize| i64::try_from(number % 20).unwrap_or(0) - 10;
    let begin = match kind % 3 {
        0 => Begin::Index(index % 4 + 1),
        1 => Begin::Keyword { word: b"KEYS".to_vec(), from: signed(index).max(1) },
        _ => Begin::Keyword { word: b"KEYS".to_vec(), from: signed(index).min(-1) },
    };
    let step = step % 4 + 1;
    let find = if kind < 3 {
        Find::Range { last: signed(last), step, limit: limit % 4 }
    } else {
        Find::Count { number: number % 4, first: first % 4 + 1, step }
    };
    let spec = KeySpec { begin, find };
    let mut raw = Vec::new();
    push_command(&mut raw, words(text).into_iter());
    with_args(&raw, |args| {
        if let Some(span) = spec.span(args) {
            assert!(span.first <= span.last && span.last < args.len() && span.step > 0);
            let found: Vec<usize> = all(std::slice::from_ref(&spec), args).collect();
            assert_eq!((found.first(), found.last()), (Some(&span.first), Some(&span.last)));
            if let Some(said) = spec.number_at(args) {
                assert_eq!(parse_i64(args.get(said)), i64::try_from(found.len()).ok());
            }
        }
    });
}

/// Every key lives somewhere, by a part of it that its rule names: where the braces are (literal and
/// byte, twice), and words, the first a rule with `*` between its literals, the others keys.
pub(super) fn placement(data: &[u8]) {
    let Some(([a, b, c, d], text)) = numbers(data) else { return };
    let words = words(text);
    let (rule, keys) = words.split_first().expect("split gives one at least");
    let literals: Vec<Vec<u8>> = rule.split(|&byte| byte == b'*').map(<[u8]>::to_vec).collect();
    let Ok(rule) = Rule::new(&literals, (a, b), (c, d)) else { return };
    let instances = 3;
    let map = || {
        SlotMap::new(&[(0, 4999, 0), (5000, 9999, 1), (10_000, SLOTS - 1, 2)], instances)
            .expect("all slots")
    };
    let placement = Placement::new(map(), vec![rule], &[(1, 2)]);
    let tail = placement.tail(0);
    for key in keys {
        let part = placement.part(key);
        assert!(part.begin <= part.end && part.end <= key.len());
        let expected = slot(&key[part.begin..part.end]);
        assert!(expected < SLOTS && placement.slot(key) == expected);
        let instance = placement.instance(0, key);
        assert!(usize::from(instance) < instances && placement.may_be_on(instance, key));
        assert_eq!((placement.instance(1, key), placement.may_be_on(2, key)), (2, true));
        if part.rule.is_none() {
            assert_eq!((part.begin, part.end), (0, key.len()));
        } else {
            assert!(part.begin < part.end && key.starts_with(&literals[0]));
            assert!(literals.iter().map(Vec::len).sum::<usize>() <= key.len());
            let mut rest = &key[part.end..];
            for literal in tail.iter().filter(|literal| !literal.is_empty()) {
                let at = memchr::memmem::find(rest, literal).expect("the rule's text");
                rest = &rest[at + literal.len()..];
            }
        }
    }
}
