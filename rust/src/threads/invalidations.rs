//! Reads the invalidation feeds of the instances, and notifies the clients that track the changed
//! keys.

use crate::base::number::parse_i64;
use crate::base::own_names::is_record;
use crate::net::socket;
use crate::net::socket::Io;
use crate::tables::invalidation_feeds::{Heard, InvalidationFeed};
use crate::threads::letters::ToCoordinator;
use crate::threads::shared::Shared;
use std::sync::atomic::Ordering::Acquire;

const CHUNK: usize = 16 * 1024;

const PONG: &[u8] = b"+PONG\r\n";

const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

impl Shared {
    /// Reads all feeds; true if a client was notified.
    pub fn hear(&self) -> bool {
        if self.invalidation_feeds.count.load(Acquire) == 0 {
            return false;
        }
        let mut invalidation_feeds = self.invalidation_feeds.lock();
        let told = invalidation_feeds.iter_mut().filter(|(_, ear)| !ear.is_lost);
        told.fold(false, |told, (instance, ear)| self.hear_one(*instance, ear) || told)
    }

    fn hear_one(&self, instance: usize, ear: &mut InvalidationFeed) -> bool {
        loop {
            match socket::read(&ear.fd, &mut ear.received, CHUNK) {
                Io::Moved(read) if read >= CHUNK => {}
                Io::Moved(_) | Io::Later => break,
                Io::Gone => {
                    ear.is_lost = true;
                    break;
                }
            }
        }
        let (mut start, mut told) = (0, false);
        while start < ear.received.len() {
            match ear.cutter.cut(&ear.received[start..]) {
                Ok(Some(length)) => {
                    let frame = &ear.received[start..start + length];
                    if let Some(body) = frame.strip_prefix(INVALIDATE) {
                        told |= self.invalidate(instance, body);
                    } else if frame == PONG {
                        self.say(instance, Heard::Pong);
                    } else if frame.starts_with(b"-") {
                        ear.is_lost = true;
                    }
                    start += length;
                }
                Ok(None) => break,
                Err(_) => {
                    ear.is_lost = true;
                    break;
                }
            }
        }
        ear.received.drain(..start);
        if ear.is_lost {
            self.say(instance, Heard::Lost);
        }
        told
    }

    fn say(&self, instance: usize, heard: Heard) {
        self.coordinator.post(ToCoordinator::Heard { instance, heard });
    }

    /// Passes on an invalidation; true if a client was notified.
    fn invalidate(&self, instance: usize, body: &[u8]) -> bool {
        let Some((_, mut rest)) = body.strip_prefix(b"*").and_then(number) else {
            self.say(instance, Heard::Everything);
            return false;
        };
        let mut keys = Vec::new();
        while let Some((length, text)) = rest.strip_prefix(b"$").and_then(number) {
            let (Some(key), Some(left)) = (text.get(..length), text.get(length + 2..)) else {
                break;
            };
            // A key that was borrowed has a copy on another instance. A change of the copy is none
            // of the key.
            let here = u16::try_from(instance).unwrap_or(u16::MAX);
            if self.placement.may_be_on(here, key) && !is_record(key) {
                keys.push(key);
            }
            rest = left;
        }
        self.tracking.invalidate(&keys, &self.doors)
    }
}

/// A number, and what follows its line.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    let number = usize::try_from(parse_i64(&bytes[..end])?).ok()?;
    Some((number, bytes.get(end + 2..)?))
}
