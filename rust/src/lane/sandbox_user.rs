//! A sandbox user (guard) at an instance, which may touch only the keys that a script has declared.
//! `lua/sandbox_user.py` is the same for the scripts of the coordinator.
//!
//! Servers refuse before they act, and name the guard in ACL LOG. One script at a time runs under a
//! name, until the first refusal. So an entry of ACL LOG belongs to one run.

use crate::base::own_names::Name;
use crate::resp::reply::{aggregate, split_first, text};
use crate::resp::request::{push_array, push_bulk};

/// One guard.
#[derive(Debug)]
pub(crate) struct SandboxUser {
    pub(crate) name: Vec<u8>,
    /// The instance has its rules, except those of the keys.
    is_made: bool,
    /// Its previous name, which is in ACL LOG.
    retired: Option<Vec<u8>>,
}

impl SandboxUser {
    /// A guard; `id` must be unique.
    pub(crate) fn new(id: &str) -> Self {
        Self { name: Name::SandboxUser.of(id.as_bytes()), is_made: false, retired: None }
    }

    /// The instance may not have its rules.
    pub(crate) fn forget_rules(&mut self) {
        self.is_made = false;
    }

    /// Changes its name.
    pub(crate) fn retire(&mut self, id: &str) {
        self.retired = Some(std::mem::replace(&mut self.name, Name::SandboxUser.of(id.as_bytes())));
        self.is_made = false;
    }

    /// Appends the commands that allow it these key patterns. Returns their number.
    pub(crate) fn set_up(
        &mut self,
        out: &mut Vec<u8>,
        patterns: &[Vec<u8>],
        rules: &[Vec<u8>],
        password: &[u8],
    ) -> usize {
        let mut count = 1;
        if let Some(retired) = self.retired.take() {
            push_array(out, 3);
            push_words(out, &[&b"ACL"[..], b"DELUSER", &retired]);
            count += 1;
        }
        if std::mem::replace(&mut self.is_made, true) {
            push_array(out, 4 + patterns.len());
            push_words(out, &[&b"ACL"[..], b"SETUSER", &self.name, b"resetkeys"]);
        } else {
            push_array(out, 6 + rules.len() + patterns.len());
            push_words(out, &[&b"ACL"[..], b"SETUSER", &self.name, b"reset", b"on"]);
            push_bulk(out, &[b">", password].concat());
            push_words(out, rules);
        }
        push_words(out, patterns);
        count
    }

    /// True if the newest entry of ACL LOG is about this guard.
    pub(crate) fn is_in(&self, log: &[u8]) -> Option<bool> {
        let (_, count, mut rest) = aggregate(log)?;
        if count == 0 {
            return Some(false);
        }
        let (entry, _) = split_first(rest)?;
        rest = aggregate(entry)?.2;
        while !rest.is_empty() {
            let (field, value);
            (field, rest) = split_first(rest)?;
            (value, rest) = split_first(rest)?;
            if text(field)? == b"username" {
                return Some(text(value)? == self.name);
            }
        }
        None
    }
}

fn push_words(out: &mut Vec<u8>, words: &[impl AsRef<[u8]>]) {
    for word in words {
        push_bulk(out, word.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::acl_pattern::rule;

    #[test]
    fn a_rule_allows_one_key() {
        assert_eq!(rule(b"user:1"), Some(b"~user:1".to_vec()));
        assert_eq!(rule(b"a*[b-c]?\\"), Some(b"~a\\*\\[b\\-c\\]\\?\\\\".to_vec()));
        assert_eq!(rule(b"a b"), None);
        assert_eq!(rule(b""), None);
    }

    #[test]
    fn only_the_newest_entry_counts() {
        let guard = SandboxUser::new("1");
        let entry = b"*1\r\n*4\r\n$6\r\nobject\r\n$8\r\nusername\r\n$8\r\nusername\r\n";
        let own = [&entry[..], b"$16\r\nthreadis-guard-1\r\n"].concat();
        let other = [&entry[..], b"$16\r\nthreadis-guard-2\r\n"].concat();
        assert_eq!(guard.is_in(&own), Some(true));
        assert_eq!(guard.is_in(&other), Some(false));
        assert_eq!(guard.is_in(b"*0\r\n"), Some(false));
        assert_eq!(guard.is_in(b"*1\r\n*2\r\n$1\r\na\r\n:1\r\n"), None);
        assert_eq!(guard.is_in(b"-ERR\r\n"), None);
    }

    #[test]
    fn its_rules_are_made_once_for_each_name() {
        let mut guard = SandboxUser::new("1");
        let said = |guard: &mut SandboxUser| {
            let mut out = Vec::new();
            let count = guard.set_up(&mut out, &[b"~k".to_vec()], &[b"+@all".to_vec()], b"pw");
            (count, String::from_utf8_lossy(&out).replace("\r\n", " "))
        };
        let (count, first) = said(&mut guard);
        assert_eq!((count, first.starts_with("*8 ")), (1, true));
        assert!(first.ends_with("$5 reset $2 on $3 >pw $5 +@all $2 ~k "), "{first}");
        let (count, second) = said(&mut guard);
        assert_eq!((count, second.ends_with("$9 resetkeys $2 ~k ")), (1, true), "{second}");
        guard.retire("2");
        let (count, third) = said(&mut guard);
        assert_eq!(count, 2);
        assert!(third.contains("$7 DELUSER $16 threadis-guard-1 "), "{third}");
        assert!(third.contains("$16 threadis-guard-2 $5 reset "), "{third}");
    }
}
