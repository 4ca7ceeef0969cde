//! Connections on which instances say which keys have changed.
//!
//! The coordinator opens them, and is woken by them. A worker reads them, too, before it runs a
//! command of a client that tracks: what an instance said before it answered the last command must
//! be known before the next one is looked at.

use crate::net::{self, Io};
use crate::number::parse_i64;
use crate::ours::is_record;
use crate::reply::Cutter;
use crate::shared::{Shared, ToCoordinator};
use rustix::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

const CHUNK: usize = 16 * 1024;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// What an instance has said besides names of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The answer to `Ears::ping`: everything before it is known.
    Pong,
    /// Any key may have changed.
    Everything,
    /// Nothing more will come.
    Lost,
}

/// One connection an instance.
#[derive(Debug, Default)]
pub struct Ears {
    ears: Mutex<Vec<(usize, Ear)>>,
    count: AtomicUsize,
}

#[derive(Debug)]
struct Ear {
    fd: OwnedFd,
    received: Vec<u8>,
    cutter: Cutter,
    is_lost: bool,
}

impl Ears {
    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Ear)>> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to an instance; its socket is non-blocking and in RESP3.
    pub fn open(&self, instance: usize, fd: OwnedFd) {
        let mut ears = self.lock();
        let mut cutter = Cutter::default();
        cutter.takes_pushes = true;
        ears.push((instance, Ear { fd, received: Vec::new(), cutter, is_lost: false }));
        self.count.store(ears.len(), Release);
    }

    /// Listens no more.
    pub fn close(&self, instance: usize) {
        let mut ears = self.lock();
        ears.retain(|(index, _)| *index != instance);
        self.count.store(ears.len(), Release);
    }

    /// Asks for a sign that everything up to now was said; false if it could not be sent.
    pub fn ping(&self, instance: usize) -> bool {
        let ears = self.lock();
        let ear = ears.iter().find(|(index, _)| *index == instance);
        ear.is_some_and(
            |(_, ear)| matches!(net::write(&ear.fd, PING), Io::Moved(sent) if sent == PING.len()),
        )
    }
}

impl Shared {
    /// Takes in what instances have said up to now; true if a client is told something.
    pub fn hear(&self) -> bool {
        if self.ears.count.load(Acquire) == 0 {
            return false;
        }
        let mut ears = self.ears.lock();
        let told = ears.iter_mut().filter(|(_, ear)| !ear.is_lost);
        told.fold(false, |told, (instance, ear)| self.hear_one(*instance, ear) || told)
    }

    fn hear_one(&self, instance: usize, ear: &mut Ear) -> bool {
        loop {
            match net::read(&ear.fd, &mut ear.received, CHUNK) {
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

    /// Passes on what has changed; true if a client is told.
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
            // Copies that are borrowed to another instance change there, but the key does not.
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
