//! What the coordinator says of clients that cache: who they are, and what has changed.

use super::{Command, Proxy, own};
use crate::base::client_key::ClientKey;
use crate::client::tracking_mode::Mode;
use crate::threads::letters::Mail;
use crate::threads::shared::Shared;
use crate::threads::tracking_table::Counts;
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
    pub(crate) fn new(proxy: &Proxy) -> Self {
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

    /// Listens to an instance; the descriptor is ours from here.
    fn listen(&self, instance: usize, fd: i32) {
        self.shared.invalidation_feeds.open(instance, own(fd));
    }

    /// Listens no more.
    fn hush(&self, instance: usize) {
        self.shared.invalidation_feeds.close(instance);
    }

    /// Asks for a sign that everything was said; false if it cannot come.
    fn ping(&self, instance: usize) -> bool {
        self.shared.invalidation_feeds.ping(instance)
    }

    /// Reads what instances have said.
    fn hear(&self) {
        self.shared.hear();
    }

    /// Keeps what instances say of these keys, until `end_changes`; then tells it, but not to the
    /// owner (its id, and how often they may say it).
    fn begin_changes(&self, ticket: u64, keys: Vec<Vec<u8>>, owner: Option<(u64, u32)>) {
        self.shared.tracking.begin_changes(ticket, keys, owner);
    }

    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn end_changes(&self, ticket: u64, gone: Vec<Vec<u8>>, read: Vec<Vec<u8>>) {
        self.shared.tracking.end_changes(ticket, &gone, &read, &self.shared.doors);
    }

    /// Notes which keys change, until it is known which have been read.
    fn begin_reading(&self, ticket: u64) {
        self.shared.tracking.begin_reading(ticket);
    }

    /// Tells a client of those of these keys, which it has read, that have changed meanwhile.
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn end_reading(&self, ticket: u64, id: u64, keys: Vec<Vec<u8>>) {
        self.shared.tracking.end_reading(ticket, id, &keys, &self.shared.doors);
    }

    /// These keys have changed, although no instance says so.
    #[expect(clippy::needless_pass_by_value, reason = "as Python hands it over")]
    fn changed(&self, keys: Vec<Vec<u8>>) {
        let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.shared.tracking.invalidate(&names, &self.shared.doors);
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
