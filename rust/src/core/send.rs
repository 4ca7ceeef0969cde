//! Finds the lane for a client's commands to an instance, and handles the cases without one.

use crate::base::step::Step;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::lane::instance::InstanceState;
use crate::lane::pool::Login;
use crate::net::poller::{KIND_LANE, event_data};
use crate::net::socket;
use rustix::event::epoll;

/// The result of looking for a lane.
pub(crate) enum Checkout {
    Lane(usize),
    Full(usize),
    Down,
}

impl Worker {
    /// The database a client has selected.
    #[inline]
    pub(crate) fn db(&self, place: usize) -> u32 {
        self.lanes.state(self.clients[place].lane_set).db
    }

    /// The lanes to several instances, or how the command proceeds because one is missing. Nothing
    /// is sent unless all lanes are available.
    pub(crate) fn check_out_all(
        &mut self,
        place: usize,
        instances: &[usize],
    ) -> Result<Vec<usize>, Step> {
        let mut lanes = Vec::with_capacity(instances.len());
        for &instance in instances {
            match self.check_out(place, instance) {
                Checkout::Lane(lane) => lanes.push(lane),
                Checkout::Full(lane) => return Err(self.wait_for_lane(place, lane)),
                Checkout::Down => return Err(self.instance_down(place, instance)),
            }
        }
        Ok(lanes)
    }

    /// The lane for a client's commands to an instance; it is opened if there is none.
    pub(crate) fn check_out(&mut self, place: usize, instance: usize) -> Checkout {
        let set = self.clients[place].lane_set;
        if let Some(lane) = self.lanes.open_lane(set, instance) {
            let is_full = self.lanes.get(lane).is_some_and(crate::lane::lane::Lane::is_full);
            return if is_full { Checkout::Full(lane) } else { Checkout::Lane(lane) };
        }
        let Some(lane) = self.free_lane(set, instance) else {
            return Checkout::Down;
        };
        self.lanes.share(lane);
        Checkout::Lane(lane)
    }

    /// A lane that is not in use: a spare one, or a new one.
    pub(crate) fn free_lane(&mut self, set: u32, instance: usize) -> Option<usize> {
        let InstanceState::Ready(socket) = &self.instances[instance] else {
            return None;
        };
        if let Some(lane) = self.lanes.find_spare(set, instance) {
            return Some(lane);
        }
        let login = Login { users: &self.shared.users, password: &self.shared.instance_password };
        let opened = self.lanes.open(set, instance, socket, login, self.now_seconds);
        let lane = opened.ok()?;
        let known = self.lanes.get(lane)?;
        if epoll::add(&self.epoll, &known.fd, event_data(KIND_LANE, lane), socket::READ).is_err() {
            self.lanes.close(lane);
            return None;
        }
        Some(lane)
    }

    pub(crate) fn wait_for_lane(&mut self, place: usize, lane: usize) -> Step {
        let client = &mut self.clients[place];
        client.gate = Gate::Lane;
        let waiter = (u32::try_from(place).expect("descriptors fit"), client.generation);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.waiting.push(waiter);
        }
        Step::Blocked
    }

    pub(crate) fn instance_down(&mut self, place: usize, instance: usize) -> Step {
        let refusal = self.instances[instance].refusal(instance);
        self.refuse(place, &refusal);
        Step::Done
    }

    /// Appends a client's command to a lane, and its reply to the client's owed replies.
    pub(crate) fn append(
        &mut self,
        place: usize,
        lane: usize,
        owed: Owed,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let sequence = self.clients[place].owe(owed);
        self.append_part(place, lane, sequence, write);
    }

    pub(crate) fn append_part(
        &mut self,
        place: usize,
        lane: usize,
        sequence: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(known) = self.lanes.get_mut(lane) else {
            return;
        };
        let begin = known.out.len();
        write(&mut known.out);
        let length = known.out.len() - begin;
        self.expect(place, lane, sequence, length);
    }

    pub(crate) fn expect(&mut self, place: usize, lane: usize, sequence: u32, length: usize) {
        let generation = self.clients[place].generation;
        let now = self.now_seconds;
        if let Some(known) = self.lanes.get_mut(lane) {
            known.expect(place, generation, sequence, length, now);
            self.counters.lane_commands += 1;
            self.mark_lane_dirty(lane);
        }
    }
}
