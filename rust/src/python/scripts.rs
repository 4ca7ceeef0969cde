//! Scripts that workers may run: set by the coordinator, reported back by the workers.

use super::Proxy;
use crate::base::client_key::ClientKey;
use crate::threads::letters::{Change, Mail};
use crate::threads::shared::Shared;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The scripts that workers may run, for the coordinator.
#[pyclass(frozen)]
pub(super) struct KnownScripts {
    shared: Arc<Shared>,
}

/// A script that a worker ran has touched what it may not.
#[pyclass(frozen, get_all)]
pub(super) struct Strayed {
    pub(super) worker: usize,
    pub(super) place: usize,
    pub(super) generation: u32,
    pub(super) script: Vec<u8>,
    pub(super) guard: Vec<u8>,
    pub(super) log: Vec<u8>,
}

/// A script that a worker runs takes too long, or has ended.
#[pyclass(frozen, get_all)]
pub(super) struct Overdue {
    pub(super) instance: usize,
    pub(super) is_so: bool,
}

#[pymethods]
impl KnownScripts {
    /// `rules` say what guards may do besides their keys.
    #[new]
    pub(crate) fn new(proxy: &Proxy, rules: Vec<Vec<u8>>) -> Self {
        proxy.shared.scripts.set_rules(rules);
        Self { shared: Arc::clone(&proxy.shared) }
    }

    /// A script, by SHA1 or text, touches its keys only; or those with their hash tags.
    fn learn(&self, script: &[u8], is_local: bool) {
        self.shared.scripts.learn(script, is_local);
    }

    /// It does not, or is none any more.
    fn forget(&self, script: &[u8]) {
        self.shared.scripts.forget(script);
    }

    /// There are no scripts any more.
    fn forget_all(&self) {
        self.shared.scripts.forget_all();
    }

    /// Whether a worker has run it since this was asked last.
    fn was_used(&self, script: &[u8]) -> bool {
        self.shared.scripts.was_used(script)
    }

    /// Says after how many milliseconds a script runs for too long; 0: that is not known.
    fn set_limit(&self, milliseconds: u64) {
        self.shared.scripts.limit.store(milliseconds, Relaxed);
    }

    /// Answers the client of a script that strayed.
    fn answer(&self, strayed: &Strayed, reply: Vec<u8>) {
        let Strayed { worker, place, generation, .. } = *strayed;
        let key = ClientKey { worker, place, generation };
        let mail = Mail::Reply(key, reply, Change::default());
        self.shared.doors[worker].mailbox.post(mail);
    }
}
