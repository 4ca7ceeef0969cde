//! Which keys are certain to be on one instance. `keys/colocation.py` is the same for the scripts
//! of the coordinator.
//!
//! A placement rule or a hash tag keeps keys on one instance, whatever else is in their names. So a
//! script with one such key may run there, and touch the others without declaring them.

use crate::routing::acl_pattern::escape;
use crate::routing::placement::Placement;

/// The prefix of the names of group locks, which no key has. The same as in `keys/colocation.py`.
const LOCK: &[u8] = b"\0threadis:group:";

/// Keys that consist of a prefix and some literals, with any text between each two.
#[derive(Debug, PartialEq, Eq)]
pub struct Group<'a> {
    prefix: &'a [u8],
    tail: Vec<Vec<u8>>,
}

impl<'a> Group<'a> {
    /// The group of a key, if its placement rule or hash tag has one. Its database must not be
    /// pinned.
    #[must_use]
    pub fn of(key: &'a [u8], placement: &Placement) -> Option<Self> {
        let part = placement.part(key);
        let (prefix, tail) = match part.rule {
            Some(rule) => (&key[..part.end], placement.tail(rule)),
            None => (tagged(key)?, vec![Vec::new(); 2]),
        };
        // An earlier rule may place some of these keys elsewhere.
        let may_meet = |first: &[u8]| first.starts_with(prefix) || prefix.starts_with(first);
        if placement.begins_before(part.rule).any(may_meet) {
            return None;
        }
        Some(Self { prefix, tail })
    }

    /// True if any text may be appended to its keys, without leaving the group.
    pub(crate) fn is_open(&self) -> bool {
        self.tail.len() > 1 && self.tail.last().is_some_and(Vec::is_empty)
    }

    /// The ACL rule that allows all its keys; `None` if no pattern is exact.
    pub(crate) fn rule(&self) -> Option<Vec<u8>> {
        let mut rule = b"~".to_vec();
        escape(self.prefix, &mut rule)?;
        for (index, literal) in self.tail.iter().enumerate() {
            if index > 0 {
                rule.push(b'*');
            }
            escape(literal, &mut rule)?;
        }
        Some(rule)
    }

    /// The name of its lock.
    pub(crate) fn lock(&self) -> Vec<u8> {
        [LOCK, self.prefix].concat()
    }
}

/// A key up to the end of its hash tag, if it has one.
fn tagged(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let length = memchr::memchr(b'}', &key[open + 1..])?;
    (length > 0).then(|| &key[..open + length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::placement::Rule;
    use crate::routing::slots::SlotMap;

    fn placement(rules: Vec<Rule>) -> Placement {
        let all = SlotMap::new(&[(0, 16383, 0)], 1).expect("one instance");
        Placement::new(all, rules, &[])
    }

    fn rule(key: &str, placement: &Placement) -> Option<String> {
        let rule = Group::of(key.as_bytes(), placement)?.rule()?;
        Some(String::from_utf8_lossy(&rule).into_owned())
    }

    fn queues() -> Rule {
        let literals = [b"bull:".to_vec(), b":".to_vec(), Vec::new()];
        Rule::new(&literals, (0, 5), (1, 0)).expect("bull:{*}:*")
    }

    #[test]
    fn a_hash_tag_keeps_keys_together() {
        let plain = placement(Vec::new());
        assert_eq!(rule("q{a-b}c", &plain).as_deref(), Some("~q{a\\-b}*"));
        for alone in ["user:1", "q{}c", "a b", "", "q{a b}c"] {
            assert_eq!(rule(alone, &plain), None, "{alone}");
        }
    }

    #[test]
    fn a_rule_keeps_keys_together() {
        let placement = placement(vec![queues()]);
        assert_eq!(rule("bull:mail:7", &placement).as_deref(), Some("~bull:mail:*"));
        assert_eq!(rule("bull:*:7", &placement).as_deref(), Some("~bull:\\*:*"));
        assert_eq!(rule("other:{mail}:7", &placement).as_deref(), Some("~other:{mail}*"));
        let group = Group::of(b"bull:mail:7", &placement).expect("a group");
        assert_eq!(group.lock(), b"\0threadis:group:bull:mail");
    }

    #[test]
    fn what_an_earlier_rule_may_take_away_is_no_group() {
        let literals = [b"bull:mail:".to_vec(), Vec::new()];
        let one = Rule::new(&literals, (0, 0), (0, 9)).expect("{bull:mail}:*");
        let placement = placement(vec![one, queues()]);
        assert_eq!(rule("bull:other:7", &placement).as_deref(), Some("~bull:other:*"));
        for unsure in ["bull:mail", "bull:mai:7", "bull:{x"] {
            assert_eq!(rule(unsure, &placement), None, "{unsure}");
        }
        assert_eq!(rule("b{u}ll", &placement).as_deref(), Some("~b{u}*"));
    }
}
