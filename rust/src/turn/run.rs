//! The turn: the list of its steps, and what is done once a second and at its end.

use crate::base::clock::monotonic;
use crate::client::closing::Closing;
use crate::core::worker::{TICK_NANOSECONDS, Worker};
use crate::threads::letters::ToCoordinator;
use crate::turn::poll::EVENTS;

impl Worker {
    /// Runs turns until the worker was asked to stop and no client is left.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.is_finished() {
            self.wait(&mut events);
            self.notice_rounds(&mut events);
            self.read_mail();
            self.let_writers_go_on();
            self.accept();
            self.read_clients();
            self.ask_for_round();
            self.post_lines();
            self.start_commits();
            self.begin_locks();
            self.write_lanes();
            self.read_lanes();
            if !self.lost.is_empty() {
                self.hand_out_losses();
            }
            self.keep_early_replies();
            self.settle_locks();
            self.advance_work();
            self.tick();
            self.write_clients();
            self.move_clients();
            self.close();
            self.end_rounds();
            self.publish();
        }
        self.shared.coordinator.post(ToCoordinator::Stopped(self.index));
    }

    /// Closes the clients and lanes that have ended. Only here are they removed.
    fn close(&mut self) {
        debug_assert!(self.lost.is_empty(), "the loss of a lane was told to nobody");
        for place in std::mem::take(&mut self.broken) {
            self.lanes.close(place);
        }
        for place in std::mem::take(&mut self.ending) {
            if self.clients.get(place).is_some_and(|client| client.closing == Closing::Now) {
                self.remove_client(place);
            }
        }
    }

    /// Advances commits and locked pops: those whose lock holds, and those that take too long.
    fn advance_work(&mut self) {
        for token in std::mem::take(&mut self.commits.granted) {
            if !self.prepare_locked(token) {
                self.begin_locked_pop(token);
            }
        }
        self.check_pop_deadlines();
        self.check_commit_deadlines();
        if !self.commits.running.is_empty() || self.locked_pops.len() > 0 {
            self.write_lanes(); // not only in the next turn
            self.hand_out_losses();
        }
    }

    fn publish(&mut self) {
        self.counters.turns += 1;
        self.counters.awake_nanoseconds += monotonic().saturating_sub(self.now);
        self.counters.lanes = self.lanes.len() as u64;
        self.counters.lanes_aside = self.lanes.count_aside() as u64;
        self.counters.clients = self.clients.len() as u64;
        self.counters.subscribers = self.audience.clients as u64;
        self.shared.doors[self.index].stats.publish(&self.counters);
    }

    fn is_finished(&self) -> bool {
        self.stop_at.is_some() && self.clients.is_empty()
    }

    /// Once a second: closes idle clients, and does the other periodic work.
    fn tick(&mut self) {
        if self.now < self.next_tick && self.stop_at.is_none_or(|at| self.now < at) {
            return;
        }
        self.next_tick = self.now + TICK_NANOSECONDS;
        self.sweep();
        self.end_idle_clients();
        self.stop_leaving();
        self.look_after_scripts();
        self.forget_states();
        for place in self.lanes.idle(self.now_seconds) {
            self.lanes.close(place);
        }
        if !self.listeners.is_empty() {
            self.accept_waiting = true; // a pause after running out of descriptors ends here
        }
    }
}
