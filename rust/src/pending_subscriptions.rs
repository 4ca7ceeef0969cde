//! Writes wait until whoever sent SUBSCRIBE before them can hear of their keyspace events.
//!
//! ```text
//! a write was read ─► a round: all workers have read what was sent before it
//!                 ─► the instances are subscribed to what these have named ─► it is taken again
//! ```
//! Both only while instances tell of what commands do. A name that may be of events is *pending* until
//! the instances are subscribed to it.

use crate::channels::Kind;
use crate::client::Gate;
use crate::command::Row;
use crate::settings::{OF_READS, OF_WRITES};
use crate::shared::{Mail, Shared};
use crate::subscriptions::concerns_events;
use crate::worker::Worker;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long a write waits for them at most: an instance may not answer now, and others do.
const WAIT_NANOSECONDS: u64 = 250_000_000;
/// No pending one is this old.
const NONE: u64 = u64::MAX;

/// Names of events that the instances are not subscribed to yet, by age.
#[derive(Debug)]
pub struct PendingSubscriptions {
    waiting: Mutex<BTreeSet<u64>>,
    /// The numbers of the oldest one, and of the newest one ever.
    oldest: AtomicU64,
    newest: AtomicU64,
}

impl Default for PendingSubscriptions {
    fn default() -> Self {
        let (oldest, newest) = (AtomicU64::new(NONE), AtomicU64::new(0));
        Self { waiting: Mutex::default(), oldest, newest }
    }
}

impl PendingSubscriptions {
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
    /// The newest pending one that it waits for.
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
    pub(crate) fn must_wait_for_subscriptions(&mut self, place: usize, row: &Row) -> bool {
        let told = self.shared.settings.events.load(Relaxed);
        if told < OF_WRITES {
            return false;
        }
        let client = &self.clients[place];
        let is_exec = row.is_exec();
        let is_told = |row: &Row| {
            row.may_replicate || row.is_script() || told == OF_READS && !row.keys.is_empty()
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
        let pending = &self.shared.registry.pending;
        let newest = pending.newest.load(SeqCst);
        let client = &mut self.clients[place];
        let (generation, read) = (client.generation, client.session.input_bytes);
        if client.session.heard_by_all == read || !pending.has_some(newest) {
            return false;
        }
        client.gate = Gate::Round;
        let until = self.now + WAIT_NANOSECONDS;
        self.writers.push(Writer { place, generation, read, newest, until });
        true
    }

    /// When the first of those who wait for pending subscriptions waits no longer.
    #[inline]
    pub(crate) fn writers_deadline(&self) -> u64 {
        self.writers.first().map_or(u64::MAX, |writer| writer.until)
    }

    /// Lets those go on for whom nothing is pending any more, or who have waited long enough.
    #[inline]
    pub(crate) fn let_writers_go_on(&mut self) {
        if self.writers.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let pending = &shared.registry.pending;
        let (waiting, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.writers)
            .into_iter()
            .partition(|one| pending.has_some(one.newest) && self.now < one.until);
        self.writers = waiting;
        for Writer { place, generation, read, newest, .. } in ready {
            pending.give_up(newest);
            if let Some(client) = self.waits_at_round(place, generation) {
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
        let pending = PendingSubscriptions::default();
        assert!(!pending.has_some(0));
        let (first, second) = (pending.add(), pending.add());
        assert!(pending.has_some(first) && pending.has_some(second));
        pending.remove(Some(first));
        assert!(!pending.has_some(first) && pending.has_some(second));
        pending.remove(Some(second));
        pending.remove(None);
        assert!(!pending.has_some(second));
    }

    #[test]
    fn who_is_not_heard_in_time_holds_up_no_later_write() {
        let pending = PendingSubscriptions::default();
        let (first, second) = (pending.add(), pending.add());
        pending.give_up(first);
        assert!(!pending.has_some(first) && pending.has_some(second));
        pending.give_up(second);
        pending.remove(Some(second));
        assert!(!pending.has_some(second));
    }
}
