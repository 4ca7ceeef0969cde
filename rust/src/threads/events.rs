//! Reads the connections on which instances publish messages and events, and passes these on to
//! subscribers.

use crate::base::number::parse_i64;
use crate::catalog::channels::Kind;
use crate::net::socket;
use crate::net::socket::Io;
use crate::tables::event_feeds::{COPIES, EVENTS, Said, Telling, Upstream};
use crate::tables::kept_messages::What;
use crate::tables::settings::NO_EVENTS;
use crate::tables::told::{Told, message, pong};
use crate::threads::letters::ToCoordinator;
use crate::threads::shared::Shared;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::TryLockError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CHUNK: usize = 64 * 1024;

/// The longest that replies wait for an instance to confirm that all its events have been sent. It
/// has just answered, but a long command may run there by now.
const WAIT: Duration = Duration::from_millis(50);

/// A worker sends this PING to an instance; its PONG confirms that all earlier events were sent.
const PING: &[u8] = b"*2\r\n$4\r\nPING\r\n$1\r\nw\r\n";

const PONG: &[u8] = b"*2\r\n$4\r\npong\r\n$1\r\nw\r\n";

impl Shared {
    /// True if a client is subscribed to keyspace events and they are switched on.
    #[inline]
    pub fn tells_events(&self) -> bool {
        self.registry.is_listened_to() && self.settings.events.load(Relaxed) != NO_EVENTS
    }

    /// Reads what an instance has published so far, unless another thread is reading it.
    pub fn hear_upstream(&self, instance: usize) {
        let mut link = match self.upstreams.links[instance].try_lock() {
            Ok(link) => link,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(upstream) = link.as_mut() {
            self.read_upstream(instance, upstream);
        }
    }

    /// Reads until an instance has sent all events of the commands that it has answered.
    pub(crate) fn hear_all_of(&self, instance: usize) {
        let mut link = self.upstreams.lock(instance);
        let Some(upstream) = link.as_mut() else { return };
        self.read_upstream(instance, upstream);
        let is_ready = !upstream.is_lost && upstream.unanswered == 0 && upstream.out.is_empty();
        if !is_ready || socket::write(&upstream.fd, PING) != Io::Moved(PING.len()) {
            return;
        }
        upstream.unanswered += 1;
        let end = Instant::now() + WAIT;
        while upstream.unanswered > 0 && !upstream.is_lost {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(&upstream.fd, PollFlags::IN)], Some(&left));
            self.read_upstream(instance, upstream);
        }
    }

    fn read_upstream(&self, instance: usize, upstream: &mut Upstream) {
        if upstream.is_lost {
            return;
        }
        loop {
            match socket::read(&upstream.fd, &mut upstream.received, CHUNK) {
                Io::Moved(_) => {
                    if self.take_in(instance, upstream).is_none() {
                        upstream.is_lost = true;
                        break;
                    }
                }
                Io::Later => break,
                Io::Gone => {
                    upstream.is_lost = true;
                    break;
                }
            }
        }
        if upstream.is_lost {
            self.coordinator.post(ToCoordinator::Upstream { instance, said: Said::Lost });
        }
    }

    /// Passes on what has been received; `None` on a protocol error.
    fn take_in(&self, instance: usize, upstream: &mut Upstream) -> Option<()> {
        let (mut start, mut messages) = (0, Vec::new());
        while let Some(length) = upstream.cutter.cut(&upstream.received[start..]).ok()? {
            let frame = &upstream.received[start..start + length];
            start += length;
            let Some(Told { kind, name, channel, payload }) = message(frame) else {
                if frame == PONG {
                    upstream.unanswered = upstream.unanswered.saturating_sub(1);
                } else if let Some(number) = pong(frame) {
                    let said = Said::Pong(number);
                    self.coordinator.post(ToCoordinator::Upstream { instance, said });
                } else if frame.starts_with(b"-BUSY ") {
                    // The instance is busy with a script: stop waiting for confirmations.
                    upstream.unanswered = 0;
                    if std::mem::take(&mut upstream.is_busy_news) {
                        let said = Said::Busy;
                        self.coordinator.post(ToCoordinator::Upstream { instance, said });
                    }
                } else if frame.starts_with(b"-") {
                    return None;
                }
                continue;
            };
            if channel == self.upstreams.marks {
                if name == self.upstreams.marks {
                    if let Some(id) = end_of_write(payload) {
                        self.upstreams.kept().written(id, instance);
                    }
                    upstream.telling = mark(payload);
                }
            } else if let Some((db, rest)) = database_of(channel) {
                let event = event_of(channel, rest, payload);
                match upstream.telling {
                    Telling::Found if event == b"keymiss" => {}
                    Telling::KeptNew(..) if event != b"new" => {}
                    Telling::Now | Telling::Found if db < u64::from(self.databases) => {
                        let is_first = name == EVENTS;
                        if event != b"expired"
                            || !self.has_lent(instance, db, (channel, payload), is_first)
                        {
                            messages.push((kind, name, &frame[1..]));
                        }
                    }
                    Telling::Kept(id, step, copied) | Telling::KeptNew(id, step, copied)
                        if name == EVENTS =>
                    {
                        let first = u64::from(self.databases) + 1; // behind that of records
                        let of_copy = db.checked_sub(first).and_then(|at| usize::try_from(at).ok());
                        let db = of_copy.map_or(db, |at| copied.get(at).copied().unwrap_or(db));
                        let digits = db.to_string();
                        let begin = &channel[..b"__keyspace@".len()];
                        let channel = [begin, digits.as_bytes(), rest].concat();
                        let what = What::Published(Kind::Channel, channel, payload.to_vec());
                        self.upstreams.kept().add(id, step, what);
                    }
                    _ => {}
                }
            } else if let Telling::Kept(id, step, _) | Telling::KeptNew(id, step, _) =
                upstream.telling
            {
                let what = What::Heard(kind, name.to_vec(), frame[1..].to_vec());
                self.upstreams.kept().add(id, step, what);
            } else {
                messages.push((kind, name, &frame[1..]));
            }
        }
        if !messages.is_empty() {
            self.registry.forward(&messages, &self.doors);
        }
        upstream.received.drain(..start);
        Some(())
    }

    /// Notes that a key has expired; true if the command that has lent the key will publish the
    /// event.
    fn has_lent(
        &self,
        instance: usize,
        db: u64,
        (channel, payload): (&[u8], &[u8]),
        is_first: bool,
    ) -> bool {
        let is_of_key = channel.starts_with(b"__keyspace@");
        let behind = memchr::memchr(b':', channel).map_or(0, |at| at + 1);
        let key = if is_of_key { &channel[behind..] } else { payload };
        let what =
            is_first.then(|| What::Published(Kind::Channel, channel.to_vec(), payload.to_vec()));
        self.upstreams.kept().expired(instance, (db, key), what)
    }
}

/// Parses the payload of a mark: a number, a step and databases of copies, then perhaps `new`. `?`
/// means `Found`, `-` means `Never`, anything else means `Now`.
fn mark(payload: &[u8]) -> Telling {
    let is_of_new = payload.ends_with(b" new");
    let mut words = payload
        .split(|&byte| byte == b' ')
        .map(|word| parse_i64(word).and_then(|number| u64::try_from(number).ok()));
    match (words.next().flatten(), words.next().flatten()) {
        (Some(id), Some(step)) => {
            let mut copied = [0; COPIES];
            copied.iter_mut().zip(words.flatten()).for_each(|(copy, db)| *copy = db);
            if is_of_new {
                Telling::KeptNew(id, step, copied)
            } else {
                Telling::Kept(id, step, copied)
            }
        }
        _ if payload == b"-" => Telling::Never,
        _ if payload == b"?" => Telling::Found,
        _ => Telling::Now,
    }
}

/// Parses a mark that ends a write: the number of its command.
fn end_of_write(payload: &[u8]) -> Option<u64> {
    u64::try_from(parse_i64(payload.strip_prefix(b"= ")?)?).ok()
}

/// The database of the key that an event is about, and what follows this number in the channel's
/// name. `None` for channels that carry no events.
fn database_of(channel: &[u8]) -> Option<(u64, &[u8])> {
    let rest =
        channel.strip_prefix(b"__keyspace@").or_else(|| channel.strip_prefix(b"__keyevent@"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let number = u64::try_from(parse_i64(number)?).ok()?;
    rest.starts_with(b"__:").then_some((number, rest))
}

/// The name of an event. On `__keyspace@` channels it is the payload, on `__keyevent@` channels it
/// is in the channel's name.
fn event_of<'m>(channel: &[u8], rest: &'m [u8], payload: &'m [u8]) -> &'m [u8] {
    if channel.starts_with(b"__keyspace@") { payload } else { &rest[b"__:".len()..] }
}
