//! Which instance has a key: that of its database, if the database is pinned; otherwise that of its
//! slot, which a placement rule may compute from a part of the key.
//!
//! Without rules and pinned databases (nearly always) this costs one check of a flag.

use crate::routing::slots::{SlotMap, slot};
use memchr::memchr;
use memchr::memmem::Finder;

/// A position in a rule's text: the literal, and the offset in it.
pub type Edge = (usize, usize);

/// A rule such as `bull:{*}:*`, as literals with a `*` between each two: `bull:`, `:` and the empty
/// one.
///
/// Each `*` matches as little as possible, and the last one matches the rest.
#[derive(Debug)]
pub struct Rule {
    first: Vec<u8>,
    /// The literals in the middle, which are never empty.
    middle: Vec<Finder<'static>>,
    /// `None` without a `*`: then the key must equal the first literal.
    last: Option<Vec<u8>>,
    open: Edge,
    close: Edge,
}

/// The part of a key that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its begin.
    pub begin: usize,
    /// Its end.
    pub end: usize,
    /// The rule that selects it; `None`: it is the whole key.
    pub rule: Option<usize>,
}

impl Rule {
    /// A rule from its literals and its braces.
    ///
    /// # Errors
    /// A message if this is no rule. `config/placement.py` has checked that before, and
    /// reported it to the user.
    pub fn new(literals: &[Vec<u8>], open: Edge, close: Edge) -> Result<Self, String> {
        let is_inside = |(index, offset): Edge| {
            literals.get(index).is_some_and(|literal| offset <= literal.len())
        };
        let (first, rest) = literals.split_first().ok_or("a rule without text")?;
        if !is_inside(open) || !is_inside(close) || open >= close {
            return Err("a rule's braces are not in its text".to_owned());
        }
        let (last, middle) = match rest.split_last() {
            Some((last, middle)) => (Some(last.clone()), middle),
            None => (None, rest),
        };
        if middle.iter().any(Vec::is_empty) {
            return Err("a rule has two * side by side".to_owned());
        }
        let middle = middle.iter().map(|literal| Finder::new(literal).into_owned()).collect();
        Ok(Self { first: first.clone(), middle, last, open, close })
    }

    /// The literals after the closing brace.
    fn tail(&self) -> Vec<Vec<u8>> {
        let (index, offset) = self.close;
        let middle = self.middle.iter().map(Finder::needle);
        let all = std::iter::once(self.first.as_slice()).chain(middle).chain(self.last.as_deref());
        let mut tail: Vec<Vec<u8>> = all.skip(index).map(<[u8]>::to_vec).collect();
        tail[0].drain(..offset);
        tail
    }

    /// The begin and end of the part that decides; `None` if the rule does not match, or the part
    /// is empty.
    fn part(&self, key: &[u8]) -> Option<(usize, usize)> {
        if !is_same(&self.first, key.get(..self.first.len())?) {
            return None;
        }
        let (mut begin, mut end) = (0, 0);
        let mut note = |index: usize, at: usize| {
            if index == self.open.0 {
                begin = at + self.open.1;
            }
            if index == self.close.0 {
                end = at + self.close.1;
            }
        };
        note(0, 0);
        let mut behind = self.first.len();
        for (index, literal) in self.middle.iter().enumerate() {
            let rest = &key[behind..];
            let found = match literal.needle() {
                &[byte] => memchr(byte, rest), // nearly always, and much faster
                _ => literal.find(rest),
            };
            let at = behind + found?;
            note(index + 1, at);
            behind = at + literal.needle().len();
        }
        match &self.last {
            Some(last) => {
                let at = key.len().checked_sub(last.len()).filter(|&at| at >= behind)?;
                if !is_same(last, &key[at..]) {
                    return None;
                }
                note(self.middle.len() + 1, at);
            }
            None if behind < key.len() => return None,
            None => {}
        }
        (begin < end).then_some((begin, end))
    }
}

/// Compares texts. An empty one has no address, and calling the library's `memcmp` with it costs 80
/// ns on processors that mask loads.
fn is_same(literal: &[u8], text: &[u8]) -> bool {
    literal.is_empty() || literal == text
}

/// Where keys are placed.
#[derive(Debug)]
pub struct Placement {
    slot_map: SlotMap,
    /// In the order in which they are tried.
    rules: Vec<Rule>,
    /// The instance of each pinned database.
    pinned: Vec<Option<u16>>,
    /// There are neither rules nor pinned databases.
    is_plain: bool,
}

impl Placement {
    /// A placement; databases are pinned by `(database, instance)`.
    #[must_use]
    pub fn new(slot_map: SlotMap, rules: Vec<Rule>, pins: &[(u32, u16)]) -> Self {
        let mut pinned = Vec::new();
        for &(db, instance) in pins {
            let db = db as usize;
            pinned.resize(pinned.len().max(db + 1), None);
            pinned[db] = Some(instance);
        }
        let is_plain = rules.is_empty() && pinned.is_empty();
        Self { slot_map, rules, pinned, is_plain }
    }

    /// True if some database is pinned.
    #[must_use]
    pub fn has_pins(&self) -> bool {
        !self.pinned.is_empty()
    }

    /// The literals of a rule after its closing brace, with a `*` between each two.
    #[must_use]
    pub fn tail(&self, rule: usize) -> Vec<Vec<u8>> {
        self.rules[rule].tail()
    }

    /// The first literals of the rules that are tried before this one; for `None`, of all rules.
    pub fn begins_before(&self, rule: Option<usize>) -> impl Iterator<Item = &[u8]> {
        self.rules[..rule.unwrap_or(self.rules.len())].iter().map(|one| one.first.as_slice())
    }

    /// The instance that has a key.
    #[must_use]
    #[inline]
    pub fn instance(&self, db: u32, key: &[u8]) -> u16 {
        if self.is_plain { self.slot_map.instance(slot(key)) } else { self.look(db, key) }
    }

    fn look(&self, db: u32, key: &[u8]) -> u16 {
        let pin = self.pinned.get(db as usize).copied().flatten();
        pin.unwrap_or_else(|| self.slot_map.instance(self.slot(key)))
    }

    /// True if a key may be on this instance, in some database.
    #[must_use]
    pub fn may_be_on(&self, instance: u16, key: &[u8]) -> bool {
        self.pinned.contains(&Some(instance)) || self.slot_map.instance(self.slot(key)) == instance
    }

    /// The slot of a key. A part that a rule selects is used as if it were the whole key.
    #[must_use]
    pub fn slot(&self, key: &[u8]) -> usize {
        let part = self.part(key);
        slot(&key[part.begin..part.end])
    }

    /// The part that decides about a key, unless its database is pinned: that of the first rule
    /// that matches, or the whole key.
    #[must_use]
    pub fn part(&self, key: &[u8]) -> Part {
        let mut rules = self.rules.iter().enumerate();
        rules
            .find_map(|(rule, one)| {
                one.part(key).map(|(begin, end)| Part { begin, end, rule: Some(rule) })
            })
            .unwrap_or(Part { begin: 0, end: key.len(), rule: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(literals: &[&str], open: Edge, close: Edge) -> Result<Rule, String> {
        let literals: Vec<Vec<u8>> = literals.iter().map(|one| one.as_bytes().to_vec()).collect();
        Rule::new(&literals, open, close)
    }

    fn part<'a>(rule: &Rule, key: &'a str) -> Option<&'a str> {
        rule.part(key.as_bytes()).map(|(begin, end)| &key[begin..end])
    }

    #[test]
    fn a_rule_takes_a_part_of_the_key() {
        let queue = rule(&["bull:", ":", ""], (0, 5), (1, 0)).expect("bull:{*}:*");
        assert_eq!(part(&queue, "bull:emails:7:logs"), Some("emails"));
        assert_eq!(part(&queue, "bull:emails:"), Some("emails"));
        assert_eq!(part(&queue, "bull:emails"), None);
        assert_eq!(part(&queue, "bull::7"), None);
        assert_eq!(part(&queue, "xbull:emails:7"), None);
        let prefix = rule(&["queue", ""], (0, 0), (0, 5)).expect("{queue}*");
        assert_eq!(part(&prefix, "queues"), Some("queue"));
        assert_eq!(part(&prefix, "queue"), Some("queue"));
        assert_eq!(part(&prefix, "que"), None);
        let one = rule(&["schedule"], (0, 0), (0, 2)).expect("{sc}hedule");
        assert_eq!(part(&one, "schedule"), Some("sc"));
        assert_eq!(part(&one, "schedules"), None);
        let end = rule(&["", ":done"], (0, 0), (1, 0)).expect("{*}:done");
        assert_eq!(part(&end, "a:done:done"), Some("a:done"));
        assert_eq!(part(&end, ":done"), None);
        let both = rule(&["", "::", "x"], (1, 1), (2, 1)).expect("*:{:*x}");
        assert_eq!(part(&both, "a:::bx"), Some("::bx"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        assert!(Rule::new(&[], (0, 0), (0, 0)).is_err());
        assert!(rule(&["a"], (0, 0), (0, 0)).is_err());
        assert!(rule(&["a"], (0, 0), (0, 2)).is_err());
        assert!(rule(&["a", "", "b"], (0, 0), (1, 0)).is_err());
    }

    #[test]
    fn a_pinned_database_beats_a_rule_and_a_rule_the_whole_key() {
        let map = || SlotMap::new(&[(0, 8191, 0), (8192, 16383, 1)], 2).expect("covers all");
        let rules = || vec![rule(&["q:", ":", ""], (0, 2), (1, 0)).expect("q:{*}:*")];
        let plain = Placement::new(map(), Vec::new(), &[]);
        let with_rule = Placement::new(map(), rules(), &[]);
        let pinned = Placement::new(map(), rules(), &[(3, 1), (1, 0)]);
        for number in 0..1000 {
            let key = format!("q:{}:{number}", number % 7);
            let part = format!("{}", number % 7);
            let expected = plain.instance(0, part.as_bytes());
            assert_eq!(with_rule.instance(0, key.as_bytes()), expected);
            assert_eq!(pinned.instance(0, key.as_bytes()), expected);
            assert_eq!(pinned.instance(2, key.as_bytes()), expected);
            assert_eq!(pinned.instance(3, key.as_bytes()), 1);
            assert_eq!(pinned.instance(1, key.as_bytes()), 0);
            assert_eq!(with_rule.may_be_on(0, key.as_bytes()), expected == 0);
            assert!(pinned.may_be_on(0, key.as_bytes()));
        }
        // A hash tag in the part counts, as in any key.
        assert_eq!(with_rule.slot(b"q:a{b}c:1"), slot(b"b"));
    }
}
