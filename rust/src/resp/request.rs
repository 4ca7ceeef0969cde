//! Cuts a client's bytes into commands: strict, incremental, without copying.
//!
//! ```text
//! *2\r\n$3\r\nGET\r\n$1\r\nk\r\n  ->  args = [GET, k] as ranges of the buffer
//! GET k\r\n                       ->  the same, split as Redis splits an inline line
//! ```
//! Only canonical framing is accepted (`DESIGN` promise 3). So the bytes of a multibulk command
//! that was cut here may be forwarded unchanged: an instance will frame them the same way.

use crate::base::number::parse_i64;
use crate::resp::inline;
use crate::resp::inline::Dialect;
use memchr::{memchr, memchr2};
use std::ops::Range;

/// The most bytes of an inline line without its end, and of a length line (Redis's
/// `PROTO_INLINE_MAX_SIZE`).
pub const INLINE_LIMIT: usize = 64 * 1024;

/// The most arguments of one command, as in Redis; effectively its bytes limit it.
pub const ARGS_LIMIT: i64 = i32::MAX as i64;

/// The most bytes of one command (Redis's default `client-query-buffer-limit`).
pub const REQUEST_LIMIT: usize = 1024 * 1024 * 1024;

/// The most arguments of one command before authentication, as in Redis.
const UNAUTHENTICATED_ARGS: i64 = 10;

/// The most bytes of one argument before authentication, as in Redis.
const UNAUTHENTICATED_BULK: usize = 16_384;

/// The result of `Request::cut`.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// The command is incomplete; call again with more bytes after the same ones.
    Incomplete,
    /// A command of `Request::args`, this many bytes long. Without arguments there is no reply.
    Complete(usize),
}

/// The error with which a client is closed: the text after `-ERR Protocol error: `.
pub type ProtocolError = Vec<u8>;

/// The progress of cutting one command. A command that arrives in pieces is scanned only once.
#[derive(Debug, Default)]
pub struct Request {
    /// The range of each argument, counted from the first byte of the command.
    args: Vec<(u32, u32)>,
    /// The arguments of an inline command, which had to be unquoted.
    inline: Option<Vec<Vec<u8>>>,
    at: usize,
    /// The arguments still to come; `None` before the header is read.
    missing: Option<i64>,
    /// More bytes have come since the last call.
    pub(crate) has_grown: bool,
}

/// A complete command, borrowed from the client's buffer.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    /// The command's bytes exactly as they came; canonical unless `is_inline`.
    pub raw: &'a [u8],
    request: &'a Request,
}

/// The limits of a command.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The client is authenticated; without that, limits are very low.
    pub is_authenticated: bool,
    /// The most bytes of one argument.
    pub argument: usize,
}

impl Limits {
    /// For a command that was cut before, or that the proxy has made.
    pub const NONE: Self = Self { is_authenticated: true, argument: REQUEST_LIMIT };
}

/// Calls `run` with the arguments of a whole command; `None` if `raw` is not one.
pub(crate) fn with_args<T>(raw: &[u8], run: impl FnOnce(Args) -> T) -> Option<T> {
    let mut request = Request::default();
    let Ok(Cut::Complete(_)) = request.cut(raw, Limits::NONE) else { return None };
    Some(run(request.args(raw)))
}

impl<'a> Args<'a> {
    /// The number of arguments, including the name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.request.inline.as_ref().map_or(self.request.args.len(), Vec::len)
    }

    /// True for an empty line or `*0`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for an inline command: an instance may not get `raw`.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.request.inline.is_some()
    }

    /// Argument `index`; panics past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> &'a [u8] {
        if let Some(inline) = &self.request.inline {
            return &inline[index];
        }
        let (start, end) = self.request.args[index];
        &self.raw[start as usize..end as usize]
    }

    /// The range of argument `index` in `raw`, unless the command came inline.
    #[cfg(feature = "python")]
    pub(crate) fn range(&self, index: usize) -> Range<usize> {
        let (start, end) = self.request.args[index];
        start as usize..end as usize
    }

    /// The bytes of arguments `range` in `raw`, which may not begin with the first; `None` if they
    /// came inline.
    fn bulks(&self, range: &Range<usize>) -> Option<&'a [u8]> {
        let ends = &self.request.args;
        let is_there = self.request.inline.is_none() && range.start > 0;
        // There is a `\r\n` between two arguments.
        is_there.then(|| {
            &self.raw[ends[range.start - 1].1 as usize + 2..ends[range.end - 1].1 as usize + 2]
        })
    }

    /// All arguments, in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |index| this.get(index))
    }
}

impl Request {
    /// Cuts one command off the front of `buffer`. After `Complete`, read it with `args`, then call
    /// `reset` before the next.
    ///
    /// # Errors
    /// The text of the protocol error, literally as in Redis where Redis has one.
    pub fn cut(&mut self, buffer: &[u8], limits: Limits) -> Result<Cut, ProtocolError> {
        self.cut_from(buffer, limits, Dialect::default())
    }

    /// The same for input that may be an inline line of a client.
    ///
    /// # Errors
    /// As `cut`.
    #[inline]
    pub fn cut_from(
        &mut self,
        buffer: &[u8],
        limits: Limits,
        dialect: Dialect,
    ) -> Result<Cut, ProtocolError> {
        self.has_grown = false;
        match buffer.first() {
            None => Ok(Cut::Incomplete),
            Some(b'*') => self.cut_multibulk(buffer, limits),
            Some(_) => self.cut_inline(buffer, dialect),
        }
    }

    /// The command that `cut` has completed; `raw` is its bytes.
    #[must_use]
    pub fn args<'a>(&'a self, raw: &'a [u8]) -> Args<'a> {
        Args { raw, request: self }
    }

    /// Forgets the command, but keeps the memory.
    pub fn reset(&mut self) {
        self.args.clear();
        self.inline = None;
        self.at = 0;
        self.missing = None;
        self.has_grown = false;
    }

    /// True while a command is incomplete.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.missing.is_some()
    }

    /// The bytes of memory for the ranges of its arguments.
    #[must_use]
    pub fn size(&self) -> usize {
        self.args.len() * size_of::<(u32, u32)>()
    }

    /// The bytes of the command that were cut.
    #[must_use]
    pub fn length_so_far(&self) -> usize {
        if self.missing.is_some() { self.at } else { 0 }
    }

    /// The argument at which `cut` reached the end of the bytes: the offset of its text, its
    /// length, and the number of arguments still to come, including it. `None` if its length is not
    /// there yet.
    #[must_use]
    pub fn announce(&self, buffer: &[u8]) -> Option<(usize, usize, usize)> {
        let missing = usize::try_from(self.missing?).ok()?;
        let (length, start) = bulk_header(buffer, self.at, REQUEST_LIMIT).ok()??;
        Some((start, length, missing))
    }

    fn cut_multibulk(&mut self, buffer: &[u8], limits: Limits) -> Result<Cut, ProtocolError> {
        let mut missing = if let Some(missing) = self.missing {
            missing
        } else {
            let Some((count, next)) = length_line(buffer, 0, "multibulk", "mbulk")? else {
                return Ok(Cut::Incomplete);
            };
            if count > ARGS_LIMIT {
                return Err("invalid multibulk length".into());
            }
            if count > UNAUTHENTICATED_ARGS && !limits.is_authenticated {
                return Err("unauthenticated multibulk length".into());
            }
            self.at = next;
            count
        };
        while missing > 0 {
            if !self.cut_bulk(buffer, limits)? {
                self.missing = Some(missing);
                return Ok(Cut::Incomplete);
            }
            missing -= 1;
        }
        Ok(Cut::Complete(self.at))
    }

    /// Cuts one `$n\r\n…\r\n`; false if it is incomplete.
    fn cut_bulk(&mut self, buffer: &[u8], limits: Limits) -> Result<bool, ProtocolError> {
        let Some((length, start)) = bulk_header(buffer, self.at, limits.argument)? else {
            return Ok(false);
        };
        if length > UNAUTHENTICATED_BULK && !limits.is_authenticated {
            return Err("unauthenticated bulk length".into());
        }
        let end = start + length;
        if end + 2 > REQUEST_LIMIT {
            return Err("command longer than 1 GB".into());
        }
        match buffer.get(end..end + 2) {
            None => return Ok(false),
            Some(b"\r\n") => {}
            Some(_) => return Err("invalid CRLF in request".into()),
        }
        let place = |offset: usize| u32::try_from(offset).map_err(|_| "command longer than 1 GB");
        self.args.push((place(start)?, place(end)?));
        self.at = end + 2;
        Ok(true)
    }

    fn cut_inline(&mut self, buffer: &[u8], dialect: Dialect) -> Result<Cut, ProtocolError> {
        let searched = self.at.min(buffer.len());
        // Servers search for the end of a line as C does, and find none after a NUL.
        let found = memchr2(b'\n', 0, &buffer[searched..]).map(|found| searched + found);
        let Some(newline) = found.filter(|&found| buffer[found] == b'\n') else {
            if buffer.len() > INLINE_LIMIT {
                return Err("too big inline request".into());
            }
            self.at = found.unwrap_or(buffer.len());
            return Ok(Cut::Incomplete);
        };
        if newline > dialect.line_limit() {
            return Err("too big inline request".into());
        }
        let line = &buffer[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.inline = Some(inline::split(line, dialect).ok_or("unbalanced quotes in request")?);
        Ok(Cut::Complete(newline + 1))
    }
}

/// Reads `$<length>\r\n` at `at`: the length, up to `most`, and the offset of the text.
#[inline]
pub(crate) fn bulk_header(
    buffer: &[u8],
    at: usize,
    most: usize,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    match buffer.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err([b"expected '$', got '", &[other][..], b"'"].concat()),
    }
    let Some((length, start)) = length_line(buffer, at, "bulk", "bulk")? else {
        return Ok(None);
    };
    let length = usize::try_from(length).ok().filter(|&length| length <= most);
    Ok(Some((length.ok_or("invalid bulk length")?, start)))
}

/// Reads `<type><number>\r\n` at `at`: the number and the offset after it, or `None` if the line is
/// incomplete. `what` and `too_big` give the errors as Redis words them.
#[inline]
fn length_line(
    buffer: &[u8],
    at: usize,
    what: &str,
    too_big: &str,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = &buffer[at + 1..];
    // Nearly every length has one or two digits, so these are checked first.
    match line {
        [digit @ b'0'..=b'9', b'\r', b'\n', ..] => Ok(Some((i64::from(digit - b'0'), at + 4))),
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            let number = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            Ok(Some((number, at + 5)))
        }
        _ => long_length_line(buffer, at, what, too_big),
    }
}

/// Any other line.
fn long_length_line(
    buffer: &[u8],
    at: usize,
    what: &str,
    too_big: &str,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = &buffer[at + 1..];
    let Some(end) = memchr(b'\r', &line[..line.len().min(INLINE_LIMIT)]) else {
        if line.len() > INLINE_LIMIT {
            return Err(format!("too big {too_big} count string").into());
        }
        return Ok(None);
    };
    match line.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err("invalid CRLF in request".into()),
    }
    let number =
        parse_i64(&line[..end]).ok_or_else(|| format!("invalid {what} length").into_bytes())?;
    Ok(Some((number, at + 1 + end + 2)))
}

/// Appends arguments `range`, each as `push_bulk` does.
pub fn push_bulks(out: &mut Vec<u8>, args: Args, range: Range<usize>) {
    if let Some(bytes) = args.bulks(&range) {
        out.extend_from_slice(bytes);
    } else {
        for index in range {
            push_bulk(out, args.get(index));
        }
    }
}

/// Appends `*n\r\n`.
pub fn push_array(out: &mut Vec<u8>, count: usize) {
    push_header(out, b'*', count);
}

/// Appends `$n\r\n<bytes>\r\n`.
pub fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    push_header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the header of a bulk string with this many bytes.
#[cfg(feature = "python")]
pub(crate) fn push_bulk_head(out: &mut Vec<u8>, length: usize) {
    push_header(out, b'$', length);
}

fn push_header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    crate::base::number::push_u64(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends a command in canonical form.
pub fn push_command<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    push_array(out, args.len());
    for arg in args {
        push_bulk(out, arg);
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
