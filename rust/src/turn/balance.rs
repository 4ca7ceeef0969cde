//! Clients move between workers: together while one worker carries them, apart when it cannot.
//!
//! ```text
//! Mail::Give  ─► the clients to go take no more commands ─► nothing is owed to them any more
//!             ─► Mail::Moved ─► the other worker goes on with them
//! ```
//! Python decides how much load goes from which worker to which
//! (`coordinator/admin/worker_balance.py`). A client stays if other threads know its state by its
//! worker's number: one with subscriptions, watched keys, client-side caching, or in MONITOR.

use crate::client::client::Client;
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::lane::lane::State;
use crate::net::poller::{KIND_CLIENT, event_data};
use crate::net::socket;
use crate::threads::letters::{Mail, ToCoordinator};
use crate::work::leaving::Leaving;
use rustix::event::epoll;
use std::sync::{Arc, PoisonError};

impl Worker {
    /// Gives away clients with about `permille` thousandths of the load, the quietest first: a
    /// client with much load should get a worker for itself, rather than the others.
    pub(crate) fn give(&mut self, to: usize, permille: u64) {
        let mut weights: Vec<(u64, usize)> = Vec::new();
        let mut total = 0;
        for (place, client) in &self.clients {
            let weight = client.weight();
            total += weight;
            let may_be_named = self.may_be_named(client);
            let is_idle = weight == 0 && permille < 1000;
            if client.gate == Gate::Open && !is_idle && client.may_move(may_be_named) {
                weights.push((weight, place));
            }
        }
        weights.sort_unstable();
        let wanted = total * permille / 1000;
        let mut given = 0;
        for (weight, place) in weights {
            given += weight;
            if given > wanted {
                break;
            }
            let client = &mut self.clients[place];
            client.gate = Gate::Move;
            self.leaving.push(Leaving { place, generation: client.generation, to });
        }
    }

    /// At the end of a turn: moves the leaving clients that are owed nothing.
    pub(crate) fn move_clients(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // A letter to all workers is read before a client moves, or after it by both: see `moves`.
        let _alone = shared.moves.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.doors[self.index].mailbox.is_empty() {
            return;
        }
        for leaving in std::mem::take(&mut self.leaving) {
            let Some(client) = self.clients.get(leaving.place) else { continue };
            if client.generation != leaving.generation || client.gate != Gate::Move {
                continue;
            }
            if !client.may_move(self.may_be_named(client)) {
                self.open_gate(leaving.place);
            } else if client.owed.is_empty() && client.pending() == 0 {
                self.hand_over(leaving.place, leaving.to);
            } else {
                self.leaving.push(leaving);
            }
        }
    }

    /// True if a client that tracks keys may have named this one to get its invalidations.
    fn may_be_named(&self, client: &Client) -> bool {
        self.shared.tracking.is_on() && self.lanes.state(client.lane_set).resp3
    }

    fn hand_over(&mut self, place: usize, to: usize) {
        let _ = epoll::delete(&self.epoll, &self.clients[place].fd);
        self.release(place);
        let key = self.key(place);
        let client = self.clients.remove(place);
        if client.notify_on_close {
            self.shared.coordinator.post(ToCoordinator::Gone(key));
        }
        self.buffered -= client.accounted;
        let state = self.lanes.state(client.lane_set);
        let doors = &self.shared.doors;
        doors[self.index].clients.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        doors[to].clients.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.shared.rounds.note_handed();
        doors[to].mailbox.post(Mail::Moved(Box::new(client), state));
        self.counters.clients_moved += 1;
    }

    /// Takes over a client that another worker has given.
    pub(crate) fn take_over(&mut self, mut client: Client, mut state: State) {
        // The client's user may have changed meanwhile.
        if let Some(id) = self.shared.users.id(&client.session.user) {
            (state.user, client.is_restricted) = (id, id != 0);
        }
        client.session.verdict = None;
        self.last_generation = self.last_generation.wrapping_add(1);
        client.generation = self.last_generation;
        client.lane_set = self.lanes.set(state, self.shared.instances);
        client.gate = Gate::Open;
        client.readable = true;
        client.notify_on_close = false;
        client.is_ready = false;
        client.is_dirty = false;
        client.last_write = None;
        client.waits_aside = false;
        self.buffered += client.accounted;
        let place = self.clients.insert(client);
        let fd = &self.clients[place].fd;
        if epoll::add(&self.epoll, fd, event_data(KIND_CLIENT, place), socket::READ).is_err() {
            self.end_client(place);
        } else if self.stop_at.is_some() {
            self.end_after_replies(place);
        } else {
            self.mark_ready(place);
        }
    }

    /// Clients that could not move within a second stay: an instance may not answer.
    pub(crate) fn stop_leaving(&mut self) {
        for leaving in std::mem::take(&mut self.leaving) {
            let client = self.clients.get(leaving.place);
            if client.is_some_and(|known| {
                known.generation == leaving.generation && known.gate == Gate::Move
            }) {
                self.open_gate(leaving.place);
            }
        }
    }
}
