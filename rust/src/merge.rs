//! Many replies → one: what the `response_policy` tips of the command table mean.

use crate::number::push_i64;
use crate::reply::{aggregate, integer, is_error, split_first};
use crate::request::push_array;

/// How the replies of several instances become the one reply of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Add integers.
    Sum,
    /// The smallest integer.
    Min,
    /// The largest integer.
    Max,
    /// Integers, or arrays of them, 1 where all say 1.
    And,
    /// Integers, or arrays of them, 1 where any says 1.
    Or,
    /// The first reply, unless some instance refused.
    AllSucceeded,
    /// The first reply that is no error, else the first error.
    OneSucceeded,
    /// One aggregate with the elements of all.
    Concat,
    /// Elements in the order of the client's keys.
    Keyed,
}

/// A reply that does not look like what the merge expects.
const MISMATCH: &[u8] = b"-ERR threadis: the instances' replies cannot be merged\r\n";

/// A reply being put together.
#[derive(Debug)]
pub struct Merging {
    merge: Merge,
    missing: usize,
    /// One reply an instance; empty where nothing was asked.
    parts: Vec<Vec<u8>>,
    /// For `Keyed`: the instance of each key, in the client's order.
    order: Vec<u16>,
}

impl Merging {
    /// Waits for `missing` parts out of `instances`.
    #[must_use]
    pub fn new(merge: Merge, instances: usize, missing: usize, order: Vec<u16>) -> Self {
        Self { merge, missing, parts: vec![Vec::new(); instances], order }
    }

    /// Takes the reply of an instance; the whole reply once nothing is missing.
    pub fn add(&mut self, instance: usize, reply: &[u8]) -> Option<Vec<u8>> {
        self.parts[instance] = reply.to_vec();
        self.missing -= 1;
        (self.missing == 0).then(|| self.finish())
    }

    /// Bytes of the parts that have come.
    #[must_use]
    pub fn size(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    fn finish(&mut self) -> Vec<u8> {
        let parts: Vec<&[u8]> =
            self.parts.iter().map(Vec::as_slice).filter(|part| !part.is_empty()).collect();
        let error = parts.iter().find(|part| is_error(part));
        if self.merge == Merge::OneSucceeded {
            return parts
                .iter()
                .find(|part| !is_error(part))
                .or(error)
                .map_or_else(|| MISMATCH.to_vec(), |part| part.to_vec());
        }
        if let Some(error) = error {
            return error.to_vec();
        }
        let merged = match self.merge {
            Merge::Sum => fold(&parts, i64::checked_add),
            Merge::Min => fold(&parts, |a, b| Some(a.min(b))),
            Merge::Max => fold(&parts, |a, b| Some(a.max(b))),
            Merge::And => fold_each(&parts, |a, b| Some(a & b)),
            Merge::Or => fold_each(&parts, |a, b| Some(a | b)),
            Merge::AllSucceeded | Merge::OneSucceeded => parts.first().map(|part| part.to_vec()),
            Merge::Concat => concat(&parts),
            Merge::Keyed => in_order(&self.parts, &self.order),
        };
        merged.unwrap_or_else(|| MISMATCH.to_vec())
    }
}

fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    push_i64(out, value);
    out.extend_from_slice(b"\r\n");
}

fn fold(parts: &[&[u8]], add: impl Fn(i64, i64) -> Option<i64>) -> Option<Vec<u8>> {
    let mut total = integer(parts.first()?)?;
    for part in &parts[1..] {
        total = add(total, integer(part)?)?;
    }
    let mut out = Vec::new();
    push_integer(&mut out, total);
    Some(out)
}

/// Folds integers, or arrays of integers element by element.
fn fold_each(parts: &[&[u8]], add: impl Fn(i64, i64) -> Option<i64>) -> Option<Vec<u8>> {
    let Some((_, count, _)) = aggregate(parts.first()?) else {
        return fold(parts, add);
    };
    let mut rest = Vec::with_capacity(parts.len());
    for part in parts {
        let (_, length, elements) = aggregate(part)?;
        if length != count {
            return None;
        }
        rest.push(elements);
    }
    let mut out = Vec::new();
    push_array(&mut out, count);
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
        push_integer(&mut out, total?);
    }
    Some(out)
}

fn concat(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let (kind, _, _) = aggregate(parts.first()?)?;
    let mut count = 0;
    let mut bytes = 0;
    for part in parts {
        let (other, length, elements) = aggregate(part)?;
        if other != kind {
            return None;
        }
        count += length;
        bytes += elements.len();
    }
    let mut out = Vec::with_capacity(bytes + 16);
    push_array(&mut out, count);
    out[0] = kind;
    for part in parts {
        out.extend_from_slice(aggregate(part)?.2);
    }
    Some(out)
}

fn in_order(parts: &[Vec<u8>], order: &[u16]) -> Option<Vec<u8>> {
    let mut rest: Vec<&[u8]> = Vec::with_capacity(parts.len());
    let mut bytes = 0;
    for part in parts {
        rest.push(if part.is_empty() { &[] } else { aggregate(part)?.2 });
        bytes += part.len();
    }
    let mut out = Vec::with_capacity(bytes + 16);
    push_array(&mut out, order.len());
    for &instance in order {
        let (element, after) = split_first(rest[usize::from(instance)])?;
        rest[usize::from(instance)] = after;
        out.extend_from_slice(element);
    }
    rest.iter().all(|left| left.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(merge: Merge, parts: &[&[u8]], order: &[u16]) -> Vec<u8> {
        let mut merging = Merging::new(merge, parts.len(), parts.len(), order.to_vec());
        let mut whole = None;
        // Replies arrive in any order.
        for (instance, part) in parts.iter().enumerate().rev() {
            assert!(whole.is_none());
            whole = merging.add(instance, part);
        }
        whole.expect("all parts are in")
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
