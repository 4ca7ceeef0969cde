//! Writes wait until clients that sent SUBSCRIBE before them can get their keyspace events.
//!
//! ```text
//! a write was read ─► a round: all workers have read what was sent before it
//!                 ─► the instances are subscribed to the names in it ─► the write is taken again
//! ```
//! Both only while instances publish events of commands. A name that may be one of events is
//! *pending* until the instances are subscribed to it.

use crate::catalog::table::Row;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::tables::settings::{OF_READS, OF_WRITES};
use crate::work::writers::Writer;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Nanoseconds that a write waits at most: one instance may not answer now, while others do.
const WAIT_NANOSECONDS: u64 = 250_000_000;

impl Worker {
    /// True, and the gate is shut, while a client may have sent SUBSCRIBE before this command and
    /// would not get its events.
    pub(crate) fn must_wait_for_subscriptions(&mut self, place: usize, row: &Row) -> bool {
        let told = self.shared.settings.events.load(Relaxed);
        if told < OF_WRITES {
            return false;
        }
        let client = &self.clients[place];
        let is_exec = row.is_exec();
        let is_told = |row: &Row| {
            row.may_replicate || row.traits.is_script || told == OF_READS && !row.keys.is_empty()
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

    /// The time at which the first of the waiting writes stops waiting for pending subscriptions.
    #[inline]
    pub(crate) fn writers_deadline(&self) -> u64 {
        self.writers.first().map_or(u64::MAX, |writer| writer.until)
    }

    /// Lets the clients go on whose subscriptions are no longer pending, or that have waited long
    /// enough.
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
