//! Waits for events, and notes which clients, lanes and listeners they concern.

use crate::base::clock::{monotonic, seconds};
use crate::client::gate::Gate;
use crate::core::worker::{TICK_NANOSECONDS, Worker};
use crate::lane::lane::Lane;
use crate::net::poller::{KIND_CLIENT, KIND_LANE, KIND_LISTENER, KIND_SHIFT};
use crate::net::spin::SPIN_NANOSECONDS;
use crate::threads::letters::ToCoordinator;
use rustix::event::{Timespec, epoll};
use std::sync::atomic::Ordering::SeqCst;

/// Events taken from the kernel in one turn.
pub(crate) const EVENTS: usize = 1024;

/// A wait of no time.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Clients that are checked in one sweep.
const SWEPT: usize = 64;

/// The other side will send nothing more.
const HANG_UP: epoll::EventFlags =
    epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP).union(epoll::EventFlags::ERR);

impl Worker {
    /// Sleeps until there are events, and notes them.
    pub(crate) fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        let is_busy = !self.ready.is_empty()
            || !self.ready_lanes.is_empty()
            || !self.dirty_lanes.is_empty()
            || self.locks.are_coming();
        let mut until =
            self.next_tick.min(self.commits.deadline()).min(self.locked_pops.deadline());
        until = until.min(self.writers_deadline());
        if !self.held.is_empty() {
            until = until.min(self.held_until);
        }
        if is_busy {
            until = 0;
        }
        let timeout = until.saturating_sub(self.now).min(TICK_NANOSECONDS);
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout / 1_000_000_000).unwrap_or(1),
            tv_nsec: i64::try_from(timeout % 1_000_000_000).unwrap_or(0),
        };
        events.clear();
        if is_busy || !self.spin.is_wise() || !self.lanes.are_waited_for() || !self.spin(events) {
            // Fails only if interrupted: then there are no events.
            let _ =
                epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout));
        }
        self.now = monotonic();
        self.now_seconds = seconds(self.now);
        self.note(events);
    }

    /// Notes every socket that is ready by now.
    pub(crate) fn look_at_sockets(&mut self, events: &mut Vec<epoll::Event>) {
        loop {
            events.clear();
            let room = rustix::buffer::spare_capacity(events);
            let is_done = epoll::wait(&self.epoll, room, Some(&AT_ONCE)).is_err();
            self.note(events);
            if is_done || events.len() < EVENTS {
                return;
            }
        }
    }

    fn note(&mut self, events: &[epoll::Event]) {
        for event in events {
            let data = event.data.u64();
            let place = usize::try_from(data & !(3 << KIND_SHIFT)).unwrap_or(usize::MAX);
            match data >> KIND_SHIFT {
                KIND_CLIENT => self.client_event(place, event.flags),
                KIND_LANE => self.lane_event(place, event.flags),
                KIND_LISTENER => self.accept_waiting = true,
                _ => self.mail_rang = true,
            }
        }
    }

    /// Polls for a while without sleeping; true if there was an event.
    fn spin(&mut self, events: &mut Vec<epoll::Event>) -> bool {
        let mut until = monotonic() + SPIN_NANOSECONDS;
        if !self.held.is_empty() {
            until = until.min(self.held_until);
        }
        while events.is_empty() && monotonic() < until {
            let room = rustix::buffer::spare_capacity(events);
            let _ = epoll::wait(&self.epoll, room, Some(&AT_ONCE));
        }
        self.spin.note(!events.is_empty());
        !events.is_empty()
    }

    fn client_event(&mut self, place: usize, flags: epoll::EventFlags) {
        let Some(client) = self.clients.get_mut(place) else {
            return;
        };
        if flags.intersects(epoll::EventFlags::OUT) {
            client.wants_write = false;
            let _ = self.watch_client(place);
            self.mark_dirty(place);
        }
        if flags.intersects(!epoll::EventFlags::OUT) {
            let client = &mut self.clients[place];
            client.readable = true;
            client.hung_up |= flags.intersects(HANG_UP);
            if client.hung_up {
                match client.gate {
                    Gate::Coordinator => {
                        self.shared.coordinator.post(ToCoordinator::HungUp(self.key(place)));
                    }
                    Gate::Pause => self.end_after_replies(place),
                    _ => {}
                }
            }
            self.mark_ready(place);
        }
    }

    fn lane_event(&mut self, place: usize, flags: epoll::EventFlags) {
        let Some(lane) = self.lanes.get_mut(place) else {
            return;
        };
        if flags.intersects(epoll::EventFlags::OUT) {
            lane.wants_write = false;
            let _ = self.watch_lane(place);
            self.mark_lane_dirty(place);
        }
        if flags.intersects(!epoll::EventFlags::OUT)
            && let Some(lane) = self.lanes.get_mut(place)
        {
            lane.readable = true;
            lane.hung_up |= flags.intersects(HANG_UP);
            self.ready_lanes.push(place);
        }
    }

    /// Once a second: looks for work whose event is missing, because a system call failed that
    /// should have caused or noted it. Of very many clients, only some are checked at a time.
    pub(crate) fn sweep(&mut self) {
        self.mail_rang = true;
        let is_waited_for = |lane: &Lane| !lane.is_idle() || lane.can_write() || lane.wants_write;
        for place in self.lanes.places(is_waited_for) {
            let Some(lane) = self.lanes.get_mut(place) else { continue };
            lane.readable = true;
            self.ready_lanes.push(place);
            if lane.wants_write {
                let _ = self.watch_lane(place);
            } else if lane.can_write() {
                self.mark_lane_dirty(place);
            }
        }
        let next = self.clients.iter().map(|(place, _)| place).filter(|&at| at >= self.swept);
        let places: Vec<usize> = next.take(SWEPT).collect();
        self.swept = places.last().filter(|_| places.len() == SWEPT).map_or(0, |last| last + 1);
        for place in places {
            let client = &mut self.clients[place];
            client.readable = true;
            if client.wants_write {
                let _ = self.watch_client(place);
            }
            self.mark_ready(place);
        }
    }

    /// Before clients are read: if a round was asked for, notes the sockets that are ready by now.
    #[inline]
    pub(crate) fn notice_rounds(&mut self, events: &mut Vec<epoll::Event>) {
        let asked = self.shared.rounds.asked.load(SeqCst);
        if asked != self.rounds.ended {
            self.rounds.noticed = asked;
            self.look_at_sockets(events);
        }
    }
}
