//! Cuts replies (RESP2) out of what a server sent. Strict: what no server sends is an error.

use memchr::memchr;

const LINE_LIMIT: usize = 64 * 1024; // bytes before a line must have ended; error texts are short
const BULK_LIMIT: i64 = 512 * 1024 * 1024; // bytes, proto-max-bulk-len of a stock server
const ARRAY_LIMIT: i64 = 1024 * 1024; // elements, more than any command of this generator requests

/// One reply; texts and values point into the buffer that it was cut from.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+text`
    Simple(&'a [u8]),
    /// `-text`
    Error(&'a [u8]),
    /// `:number`
    Integer(i64),
    /// `$length` and the value; `None` is nil.
    Bulk(Option<&'a [u8]>),
    /// `*count`: the number of elements, and their bytes, to be cut one by one. A nil array has
    /// none.
    Array(usize, &'a [u8]),
}

/// A stream that is not RESP2; nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The first reply in `bytes` and its length; `None` while it is incomplete.
///
/// # Errors
/// If `bytes` cannot be the beginning of a reply.
#[inline]
pub fn cut(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    if let [b'*', ..] = bytes { cut_array(bytes) } else { cut_flat(bytes) }
}

#[inline]
fn cut_flat(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if !b"+-:$".contains(&kind) {
        return Err(Malformed("a reply of unknown type"));
    }
    let Some(line) = cut_line(rest)? else {
        return Ok(None);
    };
    let body = line.len() + 3;
    let reply = match kind {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Integer(number(line)?),
        _ => return cut_bulk(bytes, body, number(line)?),
    };
    Ok(Some((reply, body)))
}

#[inline]
fn cut_bulk(
    bytes: &[u8],
    body: usize,
    length: i64,
) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    if length == -1 {
        return Ok(Some((Reply::Bulk(None), body)));
    }
    if length > BULK_LIMIT {
        return Err(Malformed("a value longer than any"));
    }
    let length = usize::try_from(length).map_err(|_| Malformed("a negative length"))?;
    let end = body + length;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((Reply::Bulk(Some(&bytes[body..end])), end + 2))),
        Some(_) => Err(Malformed("a value without its end")),
        None => Ok(None),
    }
}

/// Elements are flat: no command of this generator has nested arrays in its reply.
fn cut_array(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let Some(line) = cut_line(&bytes[1..])? else {
        return Ok(None);
    };
    let body = line.len() + 3;
    let count = number(line)?;
    if count > ARRAY_LIMIT {
        return Err(Malformed("an array longer than any"));
    }
    if count == -1 {
        return Ok(Some((Reply::Array(0, &[]), body)));
    }
    let count = usize::try_from(count).map_err(|_| Malformed("a negative count"))?;
    let mut end = body;
    for _ in 0..count {
        let Some((_, length)) = cut_flat(&bytes[end..])? else {
            return Ok(None);
        };
        end += length;
    }
    Ok(Some((Reply::Array(count, &bytes[body..end]), end)))
}

#[inline]
fn cut_line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    match memchr(b'\r', bytes) {
        Some(end) => match bytes.get(end + 1) {
            Some(b'\n') => Ok(Some(&bytes[..end])),
            Some(_) => Err(Malformed("a carriage return within a line")),
            None => Ok(None),
        },
        None if bytes.len() > LINE_LIMIT => Err(Malformed("a line without end")),
        None => Ok(None),
    }
}

#[inline]
fn number(line: &[u8]) -> Result<i64, Malformed> {
    let wrong = Malformed("a number that is none");
    let (negative, digits) = match line {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(wrong);
    }
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(wrong);
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"+OK\r\n-ERR no\r\n:-12\r\n$5\r\na\r\nbc\r\n$-1\r\n$0\r\n\r\n\
                            *2\r\n$1\r\nx\r\n$-1\r\n*0\r\n*-1\r\n";

    fn cut_all(mut bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut replies, whole) = (Vec::new(), bytes.len());
        while let Some((reply, length)) = cut(bytes).expect("well formed") {
            replies.push(format!("{reply:?}"));
            bytes = &bytes[length..];
        }
        (replies, whole - bytes.len())
    }

    #[test]
    fn a_stream_split_anywhere_gives_the_same_replies() {
        let (replies, used) = cut_all(STREAM);
        assert_eq!((replies.len(), used), (9, STREAM.len()));
        for split in 0..STREAM.len() {
            let (mut parts, used) = cut_all(&STREAM[..split]);
            parts.extend(cut_all(&STREAM[used..]).0);
            assert_eq!(parts, replies, "split at {split}");
        }
    }

    #[test]
    fn the_kinds_are_told_apart() {
        let one = |bytes| cut(bytes).expect("well formed").expect("whole").0;
        assert_eq!(one(b"+OK\r\n"), Reply::Simple(b"OK"));
        assert_eq!(one(b"-ERR no\r\n"), Reply::Error(b"ERR no"));
        assert_eq!(one(b":-12\r\n"), Reply::Integer(-12));
        assert_eq!(one(b"$2\r\n\r\n\r\n"), Reply::Bulk(Some(b"\r\n")));
        assert_eq!(one(b"*1\r\n:1\r\n"), Reply::Array(1, b":1\r\n"));
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let bad: [&[u8]; 9] = [
            b"OK\r\n",
            b"+a\rb\r\n",
            b"$3\r\nabcde",
            b"$-2\r\n",
            b"$\r\n",
            b"$1x\r\n",
            b"$99999999999\r\n",
            b"*1\r\n*0\r\n",
            b"*-7\r\n",
        ];
        for bytes in bad {
            assert!(cut(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(cut(&vec![b'+'; LINE_LIMIT + 2]).is_err());
    }
}
