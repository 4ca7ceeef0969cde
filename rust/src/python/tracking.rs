//! What the coordinator says of clients that cache: who they are, and what has changed.

use super::{Command, Proxy};
use crate::number::parse_i64;
use crate::shared::{ClientKey, Mail, Shared};
use crate::tracking::{Counts, Mode};
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The clients that track, for the coordinator.
#[pyclass(frozen)]
pub(super) struct Trackers {
    shared: Arc<Shared>,
}

#[pymethods]
impl Trackers {
    #[new]
    fn new(proxy: &Proxy) -> Self {
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// Lets a client track: changes of keys with these prefixes, or of what it reads; `redirect`
    /// is the id, worker, place and generation of whoever is told instead.
    fn track(
        &self,
        command: &Command,
        prefixes: Option<Vec<Vec<u8>>>,
        opt_in: bool,
        opt_out: bool,
        redirect: Option<(u64, usize, usize, u32)>,
        caching: bool,
    ) {
        let redirect = redirect
            .map(|(id, worker, place, generation)| (id, ClientKey { worker, place, generation }));
        let mode = Mode { prefixes, opt_in, opt_out, redirect, is_broken: false, caching };
        self.post(command, Some(Box::new(mode)));
    }

    /// Ends it.
    fn untrack(&self, command: &Command) {
        self.post(command, None);
    }

    /// Passes on what an instance says has changed; true if that is everything.
    fn invalidate(&self, instance: u16, push: &[u8]) -> bool {
        let Some(list) = push.strip_prefix(b">2\r\n$10\r\ninvalidate\r\n") else { return false };
        let Some(list) = list.strip_prefix(b"*") else { return true };
        let Some((_, mut rest)) = number(list) else { return false };
        let mut keys = Vec::new();
        while let Some((length, text)) = rest.strip_prefix(b"$").and_then(number) {
            let (Some(key), Some(left)) = (text.get(..length), text.get(length + 2..)) else {
                break;
            };
            // Copies that are borrowed to another instance change there, but the key does not.
            if self.shared.placement.may_be_on(instance, key) && !is_record(key) {
                keys.push(key);
            }
            rest = left;
        }
        self.shared.tracking.invalidate(&keys, &self.shared.doors);
        false
    }

    /// Any key may have changed.
    fn invalidate_all(&self) {
        self.shared.tracking.invalidate_all(&self.shared.doors);
    }

    /// How many clients track, how many keys are remembered, for how many clients each, and how
    /// many prefixes.
    fn counts(&self) -> Counts {
        self.shared.tracking.counts()
    }

    /// Keys remembered at most; 0: no limit.
    fn set_max_keys(&self, most: usize) {
        self.shared.tracking.max_keys.store(most, Relaxed);
    }
}

impl Trackers {
    fn post(&self, command: &Command, mode: Option<Box<Mode>>) {
        let (worker, place, generation) = (command.worker, command.place, command.generation);
        if let Some(door) = self.shared.doors.get(worker) {
            door.mailbox.post(Mail::Track(ClientKey { worker, place, generation }, mode));
        }
    }
}

/// True for the coordinator's records of what is half done (`commits.py`), in a hidden database.
fn is_record(key: &[u8]) -> bool {
    let records: [&[u8]; 2] = [b"threadis:prepared:", b"threadis:decided:"];
    let name = records.iter().find_map(|record| key.strip_prefix(*record));
    name.is_some_and(|name| name.len() == 24 && name.iter().all(u8::is_ascii_hexdigit))
}

/// A number, and what follows its line.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    let number = usize::try_from(parse_i64(&bytes[..end])?).ok()?;
    Some((number, bytes.get(end + 2..)?))
}
