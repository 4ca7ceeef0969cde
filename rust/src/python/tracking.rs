//! What the coordinator says of clients that cache: who they are, and what has changed.

use super::{Command, Proxy};
use crate::number::parse_i64;
use crate::shared::{ClientKey, Mail, Shared};
use crate::tracking::Mode;
use crate::tracking_table::Counts;
use pyo3::prelude::*;
use std::sync::Arc;

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
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn track(
        &self,
        command: &Command,
        prefixes: Option<Vec<Vec<u8>>>,
        flags: Vec<String>,
        redirect: Option<(u64, usize, usize, u32)>,
    ) {
        let is = |flag: &str| flags.iter().any(|known| known == flag);
        let redirect = redirect
            .map(|(id, worker, place, generation)| (id, ClientKey { worker, place, generation }));
        let mode = Mode {
            prefixes,
            opt_in: is("optin"),
            opt_out: is("optout"),
            redirect,
            no_loop: is("noloop"),
            is_broken: false,
            caching: is("caching"),
        };
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

    /// Keeps what instances say of these keys, until `end_changes`; then tells it, but not to the
    /// owner (its id, and how often they may say it).
    fn begin_changes(&self, ticket: u64, keys: Vec<Vec<u8>>, owner: Option<(u64, u32)>) {
        self.shared.tracking.begin_changes(ticket, keys, owner);
    }

    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn end_changes(&self, ticket: u64, gone: Vec<Vec<u8>>) {
        self.shared.tracking.end_changes(ticket, &gone, &self.shared.doors);
    }

    /// Remembers that a client reads these keys; those that it had not read before.
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn remember(&self, id: u64, keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let names = keys.iter().map(Vec::as_slice);
        let new = self.shared.tracking.remember(id, names, &self.shared.doors);
        new.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// It did not after all.
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn forget(&self, id: u64, keys: Vec<Vec<u8>>) {
        self.shared.tracking.forget(id, &keys);
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
        self.shared.tracking.set_max_keys(most, &self.shared.doors);
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
    let records: [&[u8]; 3] = [b"threadis:prepared:", b"threadis:decided:", b"threadis:waited:"];
    let name = records.iter().find_map(|record| key.strip_prefix(*record));
    name.is_some_and(|name| name.len() == 24 && name.iter().all(u8::is_ascii_hexdigit))
}

/// A number, and what follows its line.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    let number = usize::try_from(parse_i64(&bytes[..end])?).ok()?;
    Some((number, bytes.get(end + 2..)?))
}
