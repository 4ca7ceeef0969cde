//! Finds the end of an instance's reply, and parses the few replies that are merged.
//!
//! No recursion is needed: an aggregate only adds to the number of elements still to come, so
//! nesting costs nothing and cannot overflow the stack.

use crate::base::number::{length_of_several_digits, parse_i64};
use memchr::memchr;

/// A longer line is not a reply: instances write a type, a number and `\r\n`, or a status or an
/// error, all of which are far shorter.
const LINE_LIMIT: usize = 1024 * 1024;

/// No server sends more elements in one reply; a larger number means a broken stream.
const ELEMENTS_LIMIT: u64 = 1 << 40;

/// No server sends a longer body (its strings are limited to 512 MB). A larger number means a
/// broken stream, whose end would never come.
const BODY_LIMIT: usize = 1 << 32;

/// The first bytes of replies.
const TYPES: &[u8] = b"+-:_#,(*~>%|$=!";

/// The bytes are no reply, or an unexpected one: the lane must be closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// A reply that no command expects.
pub(crate) const STRAY: Broken = Broken("stray reply");

/// The state of the search for the end of the next reply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cutter {
    /// The bytes of the reply that were searched.
    at: usize,
    /// The elements still to come, including the one at `at`; 0 before a reply begins.
    missing: u64,
    /// The bytes still to come of the body at `at`, including its `\r\n`; 0 outside a body.
    body: usize,
    /// The bytes of the reply that were passed on, and are no longer in the buffer.
    handed_on: usize,
    /// Pushes are expected, too.
    pub takes_pushes: bool,
}

impl Cutter {
    /// The length of the reply at the front of `buffer`, or `None` if it is incomplete. Then call
    /// again with more bytes after the same ones.
    ///
    /// # Errors
    /// `Broken` if this cannot be a reply.
    #[inline]
    pub fn cut(&mut self, buffer: &[u8]) -> Result<Option<usize>, Broken> {
        if self.missing == 0
            && let Some(length) = plain(buffer)
        {
            return Ok(Some(length));
        }
        self.cut_any(buffer)
    }

    fn cut_any(&mut self, buffer: &[u8]) -> Result<Option<usize>, Broken> {
        if self.missing == 0 {
            if buffer.first() == Some(&b'>') && !self.takes_pushes {
                return Err(Broken("unexpected push"));
            }
            self.missing = 1;
        }
        while self.missing > 0 {
            if self.body == 0
                && let Some(length) = plain(&buffer[self.at..])
            {
                self.at += length;
                self.missing -= 1;
                continue;
            }
            if self.body > 0 {
                if !self.pass_body(buffer)? {
                    return Ok(None);
                }
                continue;
            }
            match element(buffer, self.at)? {
                Element::Unfinished => return Ok(None),
                Element::Line { next, more } => {
                    self.at = next;
                    self.missing = (self.missing - 1).saturating_add(more);
                }
                Element::Body { start, length } => {
                    self.at = start;
                    self.body = length + 2;
                }
            }
            if self.missing > ELEMENTS_LIMIT {
                return Err(Broken("too many elements"));
            }
        }
        let length = self.at;
        *self = Self { takes_pushes: self.takes_pushes, ..Self::default() };
        Ok(Some(length))
    }

    /// Passes over the bytes of a body that are there; true at its end.
    fn pass_body(&mut self, buffer: &[u8]) -> Result<bool, Broken> {
        let have = buffer.len() - self.at;
        let text = self.body - 2;
        if have < self.body {
            let passed = have.min(text);
            self.at += passed;
            self.body -= passed;
            return Ok(false);
        }
        if &buffer[self.at + text..self.at + self.body] != b"\r\n" {
            return Err(Broken("body without CRLF"));
        }
        self.at += self.body;
        self.body = 0;
        self.missing -= 1;
        Ok(true)
    }

    /// The bytes of the incomplete reply that may be passed on now.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.at
    }

    /// These bytes were passed on, and are no longer in the buffer.
    pub fn forget_passed(&mut self) {
        self.handed_on += self.at;
        self.at = 0;
    }

    /// True if a reply has begun and is incomplete: its command has run.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.missing > 0
    }

    /// The known bytes of the incomplete reply: those that have come, and those that its header
    /// announces.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.handed_on + self.at + self.body
    }

    /// The bytes that were announced and have not come.
    #[must_use]
    pub fn missing_body(&self) -> usize {
        self.body
    }
}

/// The length of a complete reply in one of the most frequent forms: a bulk string of at most 9,999
/// bytes, `:` with one digit, `+OK` or `$-1`. Nearly all replies are like that.
#[inline]
#[must_use]
pub fn plain(buffer: &[u8]) -> Option<usize> {
    let (end, body) = match buffer {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', ..] => (4, usize::from(ones - b'0')),
        [b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            (5, usize::from(tens - b'0') * 10 + usize::from(ones - b'0'))
        }
        [b':', b'0'..=b'9', b'\r', b'\n', ..] => return Some(4),
        [b'+', b'O', b'K', b'\r', b'\n', ..] | [b'$', b'-', b'1', b'\r', b'\n', ..] => {
            return Some(5);
        }
        [b'$', line @ ..] => {
            let (body, line_length) = length_of_several_digits(line)?;
            (1 + line_length, body)
        }
        _ => return None,
    };
    let end = end + body;
    (buffer.get(end..end + 2)? == b"\r\n").then_some(end + 2)
}

/// One step through a reply.
enum Element {
    /// It is incomplete.
    Unfinished,
    /// A whole line, which announces `more` elements.
    Line { next: usize, more: u64 },
    /// A header; its body begins at `start`.
    Body { start: usize, length: usize },
}

/// The position of the `\r`. It is nearly always within a few bytes, so these are checked first.
#[inline]
fn line_end(line: &[u8]) -> Option<usize> {
    line.iter().take(6).position(|&byte| byte == b'\r').or_else(|| memchr(b'\r', line))
}

fn element(buffer: &[u8], at: usize) -> Result<Element, Broken> {
    let Some(&kind) = buffer.get(at) else {
        return Ok(Element::Unfinished);
    };
    let line = &buffer[at + 1..];
    let Some(end) = line_end(line) else {
        if line.len() > LINE_LIMIT {
            return Err(Broken("endless line"));
        }
        return unfinished(kind);
    };
    match line.get(end + 1) {
        None => return unfinished(kind),
        Some(b'\n') => {}
        Some(_) => return Err(Broken("CR without LF")),
    }
    let next = at + 1 + end + 2;
    let number = || parse_i64(&line[..end]).ok_or(Broken("bad length"));
    let count = || u64::try_from(number()?.max(0)).map_err(|_| Broken("bad length"));
    let more = match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => 0,
        b'*' | b'~' | b'>' => count()?,
        b'%' => count()?.saturating_mul(2),
        // An attribute precedes the element that it describes.
        b'|' => count()?.saturating_mul(2).saturating_add(1),
        b'$' | b'=' | b'!' => match number()? {
            -1 => 0,
            length => {
                let length = usize::try_from(length).map_err(|_| Broken("bad length"))?;
                if length > BODY_LIMIT {
                    return Err(Broken("body longer than 4 GB"));
                }
                return Ok(Element::Body { start: next, length });
            }
        },
        _ => return Err(Broken("unknown type")),
    };
    Ok(Element::Line { next, more })
}

/// An incomplete line, or an error if no reply begins with this byte, because such a line might
/// never end.
fn unfinished(kind: u8) -> Result<Element, Broken> {
    if TYPES.contains(&kind) { Ok(Element::Unfinished) } else { Err(Broken("unknown type")) }
}

/// The integer of a `:n` reply.
#[must_use]
pub fn integer(reply: &[u8]) -> Option<i64> {
    parse_i64(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// True for every form of a null reply.
#[must_use]
pub fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n")
}

/// True for an error reply.
#[must_use]
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The header of an aggregate: its type, its length, and the bytes of its elements.
#[must_use]
pub fn aggregate(reply: &[u8]) -> Option<(u8, usize, &[u8])> {
    let kind = *reply.first().filter(|kind| matches!(kind, b'*' | b'~' | b'%'))?;
    let end = memchr(b'\r', reply)?;
    let count = usize::try_from(parse_i64(&reply[1..end])?).ok()?;
    Some((kind, count, &reply[end + 2..]))
}

/// Cuts the first element of `elements`.
#[must_use]
pub fn split_first(elements: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = Cutter::default().cut(elements).ok()??;
    Some(elements.split_at(length))
}

/// The bytes of a bulk string, status or error.
#[must_use]
pub fn text(reply: &[u8]) -> Option<&[u8]> {
    let end = memchr(b'\r', reply)?;
    match reply.first()? {
        b'$' => reply.get(end + 2..reply.len().checked_sub(2)?),
        b'+' | b'-' => Some(&reply[1..end]),
        _ => None,
    }
}

/// Appends `-<text>\r\n`; line breaks in the text are replaced.
pub fn push_error(out: &mut Vec<u8>, message: &[u8]) {
    out.push(b'-');
    out.extend(message.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// The same in a buffer of its own.
pub(crate) fn error(message: &str) -> Vec<u8> {
    let mut reply = Vec::with_capacity(message.len() + 3);
    push_error(&mut reply, message.as_bytes());
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: [&[u8]; 12] = [
        b"+OK\r\n",
        b"-ERR x\r\n",
        b":-12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"*-1\r\n",
        b"*3\r\n*2\r\n:1\r\n:2\r\n$1\r\na\r\n*0\r\n",
        b"%1\r\n+k\r\n~2\r\n#t\r\n,1.5\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"_\r\n",
    ];

    #[test]
    fn every_reply_is_cut_whole_however_it_arrives() {
        for reply in REPLIES {
            let mut stream = reply.to_vec();
            stream.extend_from_slice(b"+NEXT\r\n");
            let mut cutter = Cutter::default();
            for have in 0..reply.len() {
                assert_eq!(cutter.cut(&stream[..have]), Ok(None), "{reply:?} {have}");
            }
            assert_eq!(cutter.cut(&stream), Ok(Some(reply.len())), "{reply:?}");
        }
    }

    #[test]
    fn what_is_no_reply_breaks_the_lane() {
        for bytes in [
            b">2\r\n+a\r\n+b\r\n".as_slice(),
            b"$x\r\n",
            b"$-2\r\n",
            b"$4294967297\r\n",
            b"$1\r\nabc\r\n",
            b"*01\r\n",
            b"?",
            b"\r\n",
            b"+a\rb\r\n",
            b"*9223372036854775807\r\n",
            b"*5\r\n%9223372036854775807\r\n",
            b"|9223372036854775807\r\n",
        ] {
            assert!(Cutter::default().cut(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut nested = b"*1\r\n".repeat(1_000_000);
        nested.extend_from_slice(b":1\r\n");
        let length = nested.len();
        assert_eq!(Cutter::default().cut(&nested), Ok(Some(length)));
    }

    #[test]
    fn errors_stay_on_one_line() {
        let mut out = Vec::new();
        push_error(&mut out, b"ERR a\r\n+FORGED");
        assert_eq!(out, b"-ERR a  +FORGED\r\n");
    }
}
