//! SCAN over several instances, one after the other; the cursor tells which.
//!
//! `cursor of the client = cursor of the instance × instances + instance`. So it stays an unsigned
//! decimal, 0 begins, and only the end of the last instance is 0 again. A server's cursors stay
//! below the size of its hash table (bits are reversed within the mask), far below 2^56. A cursor
//! above that is invalid, and goes to the last instance, after which nothing comes.

use crate::base::number::push_u64;
use crate::resp::reply::{aggregate, is_error, split_first, text};
use crate::resp::request::push_bulk;

/// The cursor of an instance, multiplied by the number of instances, is always lower.
const NOT_OURS: u64 = 1 << 56;

/// The instance of a client's cursor, and that instance's own cursor. `None` if it does not consist
/// of digits, because servers differ in how they treat blanks and signs.
#[must_use]
pub fn decode(cursor: &[u8], instances: usize) -> Option<(usize, u64)> {
    let count = u64::try_from(instances).ok()?;
    let cursor = parse(cursor)?;
    if cursor >= NOT_OURS {
        return Some((instances - 1, cursor));
    }
    Some((usize::try_from(cursor % count).ok()?, cursor / count))
}

/// The client's cursor; `None` if it would not fit.
fn encode(instance: usize, cursor: u64, instances: usize) -> Option<u64> {
    let count = u64::try_from(instances).ok()?;
    let instance = u64::try_from(instance).ok()?;
    match (cursor, instance + 1) {
        (0, next) if next == count => Some(0),
        (0, next) => Some(next),
        (cursor, _) => cursor.checked_mul(count)?.checked_add(instance),
    }
}

/// The reply of an instance, with the client's cursor instead of its own.
#[must_use]
pub fn rewrite(reply: &[u8], instance: usize, instances: usize) -> Vec<u8> {
    if is_error(reply) {
        return reply.to_vec();
    }
    rewritten(reply, instance, instances)
        .unwrap_or_else(|| b"-ERR threadis: unexpected reply to SCAN\r\n".to_vec())
}

fn rewritten(reply: &[u8], instance: usize, instances: usize) -> Option<Vec<u8>> {
    let (b'*', 2, elements) = aggregate(reply)? else { return None };
    let (cursor, keys) = split_first(elements)?;
    let cursor = encode(instance, parse(text(cursor)?)?, instances)?;
    let mut out = Vec::with_capacity(reply.len() + 8);
    out.extend_from_slice(b"*2\r\n");
    let mut digits = Vec::new();
    push_u64(&mut digits, cursor);
    push_bulk(&mut out, &digits);
    out.extend_from_slice(keys);
    Some(out)
}

fn parse(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_visits_every_instance_and_ends() {
        // The replies of three instances, call by call.
        let answers = [vec![5, 3, 0], vec![0], vec![7, 0]];
        let (mut cursor, mut calls) = ("0".to_string(), Vec::new());
        let mut turn = [0, 0, 0];
        loop {
            let (instance, own) = decode(cursor.as_bytes(), 3).expect("our own cursor");
            calls.push((instance, own));
            let next = answers[instance][turn[instance]];
            turn[instance] += 1;
            cursor = encode(instance, next, 3).expect("fits").to_string();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(calls, [(0, 0), (0, 5), (0, 3), (1, 0), (2, 0), (2, 7)]);
    }

    #[test]
    fn replies_keep_their_keys() {
        let reply = b"*2\r\n$2\r\n12\r\n*1\r\n$1\r\nk\r\n";
        assert_eq!(rewrite(reply, 1, 4), b"*2\r\n$2\r\n49\r\n*1\r\n$1\r\nk\r\n");
        assert_eq!(rewrite(b"-ERR x\r\n", 1, 4), b"-ERR x\r\n");
    }

    #[test]
    fn behind_a_cursor_that_nobody_was_given_nothing_comes() {
        assert_eq!(decode(b"18446744073709551615", 3), Some((2, u64::MAX)));
        assert_eq!(encode(2, 0, 3), Some(0));
    }

    #[test]
    fn only_decimals_are_cursors() {
        for bad in ["", "-1", "+1", "1 ", "x", "18446744073709551616"] {
            assert_eq!(decode(bad.as_bytes(), 4), None, "{bad}");
        }
    }
}
