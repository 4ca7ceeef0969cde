//! Decimal numbers as Redis reads and writes them.

/// Parses a whole byte string like Redis's `string2ll`: an optional `-`, no leading zeros, no `+`,
/// nothing else, within `i64`.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        // Built as a negative number, because their range is larger by one.
        value = value.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Appends a decimal number.
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// Appends a decimal number.
pub fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20]; // u64::MAX has 20 digits
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The number of three or four digits at the front of `line`, in canonical form, and the length of
/// the line with its `\r\n`. `None` if the line is not complete, or is anything else.
#[must_use]
pub fn length_of_several_digits(line: &[u8]) -> Option<(usize, usize)> {
    let digits = line.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
    if !(3..=4).contains(&digits) || line[0] == b'0' || line.get(digits..digits + 2)? != b"\r\n" {
        return None;
    }
    let add = |sum: usize, &digit: &u8| sum * 10 + usize::from(digit - b'0');
    Some((line[..digits].iter().fold(0, add), digits + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_reads() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            ("", None),
            ("-", None),
            (" 1", None),
            ("1 ", None),
            ("1e3", None),
            ("0x1", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for value in [0, 7, -7, 10, 12_345, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_i64(&mut out, value);
            assert_eq!(parse_i64(&out), Some(value));
        }
    }
}
