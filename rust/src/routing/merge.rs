//! Merges many replies into one, as the `response_policy` tips of the command table require.

use crate::base::begun::Begun;
use crate::base::count::count_down;
use crate::base::number::push_i64;
use crate::catalog::merge_kind::Merge;
use crate::resp::reply::{aggregate, integer, is_error, split_first};
use crate::resp::request::push_array;
use std::ops::Range;

/// The error if a reply is not of the kind that the merge requires.
const MISMATCH: &[u8] = b"-ERR threadis: the instances' replies cannot be merged\r\n";

/// If the first part has fewer bytes than this, memory is reserved for others of its size.
const ALIKE: usize = 4 * 1024;

/// A reply that is being merged.
#[derive(Debug)]
pub struct Merging {
    merge: Merge,
    missing: usize,
    /// The parts that have come, one after the other.
    bytes: Vec<u8>,
    /// The part of each instance; empty if nothing was asked of it, or nothing has come.
    parts: Vec<Range<usize>>,
    /// For `Keyed`: the instance of each key, in the client's order.
    order: Vec<u16>,
    /// The client's command, for the logs.
    pub(crate) begun: Option<Begun>,
}

impl Merging {
    /// Waits for `missing` parts out of `instances`.
    #[must_use]
    pub fn new(merge: Merge, instances: usize, missing: usize, order: Vec<u16>) -> Self {
        Self { merge, missing, bytes: Vec::new(), parts: vec![0..0; instances], order, begun: None }
    }

    /// Adds the reply of an instance. If it was the last one, appends the merged reply to `out` and
    /// returns true.
    pub fn add(&mut self, instance: usize, reply: &[u8], out: &mut Vec<u8>) -> bool {
        count_down(&mut self.missing);
        if self.missing == 0 {
            self.finish(instance, reply, out);
            return true;
        }
        if self.bytes.is_empty() && reply.len() < ALIKE {
            self.bytes.reserve(reply.len() * self.missing);
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(reply);
        self.parts[instance] = begin..self.bytes.len();
        false
    }

    /// The bytes of the parts that have come.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn finish(&self, instance: usize, last: &[u8], out: &mut Vec<u8>) {
        let mut all: Vec<&[u8]> = self.parts.iter().map(|part| &self.bytes[part.clone()]).collect();
        all[instance] = last;
        let parts = || all.iter().copied().filter(|part| !part.is_empty());
        let error = parts().find(|part| is_error(part));
        let begin = out.len();
        let merged = match (self.merge, error) {
            (Merge::OneSucceeded, _) => copy(parts().find(|part| !is_error(part)).or(error), out),
            (_, Some(error)) => copy(Some(error), out),
            (Merge::AllSucceeded, None) => copy(parts().next(), out),
            (Merge::Sum, None) => fold(parts(), i64::checked_add, out),
            (Merge::Min, None) => fold(parts(), |a, b| Some(a.min(b)), out),
            (Merge::Max, None) => fold(parts(), |a, b| Some(a.max(b)), out),
            (Merge::And, None) => fold_each(parts(), |a, b| Some(a & b), out),
            (Merge::Or, None) => fold_each(parts(), |a, b| Some(a | b), out),
            (Merge::Concat, None) => concat(parts(), out),
            (Merge::Keyed, None) => in_order(all, &self.order, out),
        };
        if merged.is_none() {
            out.truncate(begin);
            out.extend_from_slice(MISMATCH);
        }
    }
}

fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    push_i64(out, value);
    out.extend_from_slice(b"\r\n");
}

fn copy(part: Option<&[u8]>, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(part?);
    Some(())
}

fn fold<'a>(
    mut parts: impl Iterator<Item = &'a [u8]>,
    add: impl Fn(i64, i64) -> Option<i64>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut total = integer(parts.next()?)?;
    for part in parts {
        total = add(total, integer(part)?)?;
    }
    push_integer(out, total);
    Some(())
}

/// Merges integers, or arrays of integers element by element.
fn fold_each<'a>(
    parts: impl Iterator<Item = &'a [u8]> + Clone,
    add: impl Fn(i64, i64) -> Option<i64>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let Some((_, count, _)) = aggregate(parts.clone().next()?) else {
        return fold(parts, add, out);
    };
    let mut rest = Vec::new();
    for part in parts {
        let (_, length, elements) = aggregate(part)?;
        if length != count {
            return None;
        }
        rest.push(elements);
    }
    push_array(out, count);
    for _ in 0..count {
        let mut total: Option<i64> = None;
        for elements in &mut rest {
            let (element, after) = split_first(elements)?;
            *elements = after;
            let value = integer(element)?;
            total = Some(match total {
                Some(total) => add(total, value)?,
                None => value,
            });
        }
        push_integer(out, total?);
    }
    Some(())
}

fn concat<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) -> Option<()> {
    let (kind, _, _) = aggregate(parts.clone().next()?)?;
    let mut count = 0;
    for part in parts.clone() {
        let (other, length, _) = aggregate(part)?;
        if other != kind {
            return None;
        }
        count += length;
    }
    let begin = out.len();
    push_array(out, count);
    out[begin] = kind;
    for part in parts {
        out.extend_from_slice(aggregate(part)?.2);
    }
    Some(())
}

fn in_order(mut rest: Vec<&[u8]>, order: &[u16], out: &mut Vec<u8>) -> Option<()> {
    out.reserve(rest.iter().map(|part| part.len()).sum());
    for part in rest.iter_mut().filter(|part| !part.is_empty()) {
        *part = aggregate(part)?.2;
    }
    push_array(out, order.len());
    for &instance in order {
        let (element, after) = split_first(rest[usize::from(instance)])?;
        rest[usize::from(instance)] = after;
        out.extend_from_slice(element);
    }
    rest.iter().all(|left| left.is_empty()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(merge: Merge, parts: &[&[u8]], order: &[u16]) -> Vec<u8> {
        let mut merging = Merging::new(merge, parts.len(), parts.len(), order.to_vec());
        let mut whole = b"before".to_vec();
        // Replies arrive in any order.
        for (instance, part) in parts.iter().enumerate().rev() {
            assert_eq!(merging.add(instance, part, &mut whole), instance == 0);
        }
        whole.strip_prefix(b"before").expect("what was there stays").to_vec()
    }

    #[test]
    fn each_policy_means_what_the_tips_say() {
        let ints: [&[u8]; 3] = [b":3\r\n", b":-1\r\n", b":5\r\n"];
        assert_eq!(merged(Merge::Sum, &ints, &[]), b":7\r\n");
        assert_eq!(merged(Merge::Min, &ints, &[]), b":-1\r\n");
        assert_eq!(merged(Merge::Max, &ints, &[]), b":5\r\n");
        let flags: [&[u8]; 2] = [b"*2\r\n:1\r\n:0\r\n", b"*2\r\n:1\r\n:1\r\n"];
        assert_eq!(merged(Merge::And, &flags, &[]), b"*2\r\n:1\r\n:0\r\n");
        assert_eq!(merged(Merge::Or, &flags, &[]), b"*2\r\n:1\r\n:1\r\n");
        let mixed: [&[u8]; 2] = [b"-ERR no\r\n", b"+OK\r\n"];
        assert_eq!(merged(Merge::AllSucceeded, &mixed, &[]), b"-ERR no\r\n");
        assert_eq!(merged(Merge::OneSucceeded, &mixed, &[]), b"+OK\r\n");
        assert_eq!(merged(Merge::OneSucceeded, &mixed[..1], &[]), b"-ERR no\r\n");
        let sets: [&[u8]; 2] = [b"~1\r\n+a\r\n", b"~2\r\n+b\r\n*1\r\n:1\r\n"];
        assert_eq!(merged(Merge::Concat, &sets, &[]), b"~3\r\n+a\r\n+b\r\n*1\r\n:1\r\n");
    }

    #[test]
    fn keyed_replies_come_back_in_the_callers_order() {
        let parts: [&[u8]; 2] = [b"*2\r\n$1\r\na\r\n$-1\r\n", b"*1\r\n$1\r\nb\r\n"];
        let whole = merged(Merge::Keyed, &parts, &[0, 1, 0]);
        assert_eq!(whole, b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
    }

    #[test]
    fn what_cannot_be_merged_is_an_error_never_a_guess() {
        let parts: [&[u8]; 2] = [b"*2\r\n$1\r\na\r\n$-1\r\n", b"*1\r\n$1\r\nb\r\n"];
        assert_eq!(merged(Merge::Keyed, &parts, &[0, 1]), MISMATCH);
        assert_eq!(merged(Merge::Sum, &parts, &[]), MISMATCH);
        assert_eq!(merged(Merge::Concat, &[b"*0\r\n", b":1\r\n"], &[]), MISMATCH);
    }
}
