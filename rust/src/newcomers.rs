//! Writes wait until whoever sent SUBSCRIBE before them can hear of their keyspace events.
//!
//! ```text
//! a write was read ─► a round: all workers have read what was sent before it
//!                 ─► the instances are subscribed to what these have named ─► it is taken again
//! ```
//! Both only while instances tell of what commands do. Who hears for others that the instances are not
//! subscribed yet is a *newcomer*: a name that may be of events.

use crate::client::{Closing, Gate};
use crate::command::{Route, Row, Verb};
use crate::settings::{OF_READS, OF_WRITES};
use crate::shared::{Mail, Shared};
use crate::subscriptions::{Kind, concerns_events};
use crate::tracking::is_script;
use crate::worker::Worker;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long a write waits for newcomers at most: an instance may not answer now, and others do.
const WAIT_NANOSECONDS: u64 = 250_000_000;
/// No newcomer is this old.
const NONE: u64 = u64::MAX;

/// Names of events that the instances are not subscribed to yet, by age.
#[derive(Debug)]
pub struct Newcomers {
    waiting: Mutex<BTreeSet<u64>>,
    /// The numbers of the oldest one, and of the newest one ever.
    oldest: AtomicU64,
    newest: AtomicU64,
}

impl Default for Newcomers {
    fn default() -> Self {
        let (oldest, newest) = (AtomicU64::new(NONE), AtomicU64::new(0));
        Self { waiting: Mutex::default(), oldest, newest }
    }
}

impl Newcomers {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one; its number.
    pub(crate) fn add(&self) -> u64 {
        let mut waiting = self.lock();
        let number = self.newest.fetch_add(1, SeqCst) + 1;
        waiting.insert(number);
        self.note_oldest(&waiting);
        number
    }

    /// It is heard, or gone.
    pub(crate) fn remove(&self, number: Option<u64>) {
        let Some(number) = number else { return };
        let mut waiting = self.lock();
        waiting.remove(&number);
        self.note_oldest(&waiting);
    }

    /// Those up to this number have had their time: nobody waits for them any more.
    fn give_up(&self, newest: u64) {
        let mut waiting = self.lock();
        *waiting = waiting.split_off(&(newest + 1));
        self.note_oldest(&waiting);
    }

    fn note_oldest(&self, waiting: &BTreeSet<u64>) {
        self.oldest.store(waiting.first().copied().unwrap_or(NONE), SeqCst);
    }

    /// Whether some are left of those up to this number.
    fn has_some(&self, newest: u64) -> bool {
        self.oldest.load(SeqCst) <= newest
    }
}

/// A client whose write waits.
#[derive(Debug)]
pub(crate) struct Writer {
    place: usize,
    generation: u32,
    /// How much of what it has sent was read.
    read: u64,
    /// The newest newcomer that it waits for.
    newest: u64,
    until: u64,
}

impl Shared {
    /// The instances are subscribed to these names.
    pub fn are_upstream(&self, kind: Kind, names: &[Vec<u8>]) {
        self.registry.are_upstream(kind, names);
        if names.iter().any(|name| concerns_events(kind, name)) {
            for door in &self.doors {
                door.mailbox.post(Mail::Round); // whose writes wait for that go on
            }
        }
    }
}

impl Worker {
    /// True, and the gate is shut, while somebody may have sent SUBSCRIBE before this client's command who
    /// would not hear of its events.
    pub(crate) fn must_let_newcomers_in(&mut self, place: usize, row: &Row) -> bool {
        let told = self.shared.settings.events.load(Relaxed);
        if told < OF_WRITES {
            return false;
        }
        let client = &self.clients[place];
        let is_exec = row.route == Route::Session(Verb::Exec);
        let is_told = |row: &Row| {
            row.may_replicate || is_script(row) || told == OF_READS && !row.keys.is_empty()
        };
        let table = &self.shared.table;
        let may_be_told = match &client.multi {
            Some(multi) => {
                is_exec && multi.rows.iter().any(|&queued| is_told(table.row(queued as usize)))
            }
            None => is_told(row),
        };
        if !may_be_told || client.executing.is_some() {
            return false;
        }
        if self.must_let_others_read(place) {
            return true;
        }
        let newcomers = &self.shared.registry.newcomers;
        let newest = newcomers.newest.load(SeqCst);
        let client = &mut self.clients[place];
        let (generation, read) = (client.generation, client.session.input_bytes);
        if client.session.heard_by_all == read || !newcomers.has_some(newest) {
            return false;
        }
        client.gate = Gate::Round;
        let until = self.now + WAIT_NANOSECONDS;
        self.writers.push(Writer { place, generation, read, newest, until });
        true
    }

    /// When the first of those who wait for newcomers waits no longer.
    #[inline]
    pub(crate) fn writers_deadline(&self) -> u64 {
        self.writers.first().map_or(u64::MAX, |writer| writer.until)
    }

    /// Lets those go on whose newcomers are heard, or who have waited long enough.
    #[inline]
    pub(crate) fn let_writers_go_on(&mut self) {
        if self.writers.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let newcomers = &shared.registry.newcomers;
        let (waiting, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.writers)
            .into_iter()
            .partition(|one| newcomers.has_some(one.newest) && self.now < one.until);
        self.writers = waiting;
        for Writer { place, generation, read, newest, .. } in ready {
            newcomers.give_up(newest);
            let client = self.clients.get_mut(place);
            if let Some(client) = client.filter(|client| {
                (client.generation, client.gate) == (generation, Gate::Round)
                    && client.closing == Closing::No
            }) {
                client.session.heard_by_all = read;
                self.open_gate(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_waits_for_those_who_came_before_it() {
        let newcomers = Newcomers::default();
        assert!(!newcomers.has_some(0));
        let (first, second) = (newcomers.add(), newcomers.add());
        assert!(newcomers.has_some(first) && newcomers.has_some(second));
        newcomers.remove(Some(first));
        assert!(!newcomers.has_some(first) && newcomers.has_some(second));
        newcomers.remove(Some(second));
        newcomers.remove(None);
        assert!(!newcomers.has_some(second));
    }

    #[test]
    fn who_is_not_heard_in_time_holds_up_no_later_write() {
        let newcomers = Newcomers::default();
        let (first, second) = (newcomers.add(), newcomers.add());
        newcomers.give_up(first);
        assert!(!newcomers.has_some(first) && newcomers.has_some(second));
        newcomers.give_up(second);
        newcomers.remove(Some(second));
        assert!(!newcomers.has_some(second));
    }
}
