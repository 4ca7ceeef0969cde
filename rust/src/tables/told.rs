//! What an instance sends where it publishes: messages, and replies to PING.

use crate::base::number::parse_i64;
use crate::catalog::channels::Kind;

/// The number in the reply to a PING of the coordinator.
pub(crate) fn pong(frame: &[u8]) -> Option<u64> {
    let (_, rest) = bulk(frame.strip_prefix(b"*2\r\n")?)?;
    u64::try_from(parse_i64(bulk(rest)?.0)?).ok()
}

/// A message.
pub(crate) struct Told<'m> {
    /// The kind of its subscription.
    pub(crate) kind: Kind,
    /// The name of its subscription.
    pub(crate) name: &'m [u8],
    pub(crate) channel: &'m [u8],
    pub(crate) payload: &'m [u8],
}

/// Parses a message; `None` for other replies.
pub(crate) fn message(reply: &[u8]) -> Option<Told<'_>> {
    let body = reply.strip_prefix(b"*3\r\n").or_else(|| reply.strip_prefix(b"*4\r\n"))?;
    let (word, rest) = bulk(body)?;
    let kind = match word {
        b"message" => Kind::Channel,
        b"pmessage" => Kind::Pattern,
        b"smessage" => Kind::Shard,
        _ => return None,
    };
    let (name, mut rest) = bulk(rest)?;
    let mut channel = name;
    if kind == Kind::Pattern {
        (channel, rest) = bulk(rest)?;
    }
    Some(Told { kind, name, channel, payload: bulk(rest)?.0 })
}

/// A bulk string and what follows it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', bytes)?;
    let length = usize::try_from(parse_i64(&bytes[..end])?).ok()?;
    let rest = bytes.get(end + 2..)?;
    Some((rest.get(..length)?, rest.get(length + 2..)?))
}
