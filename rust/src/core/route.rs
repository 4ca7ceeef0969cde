//! Sends a command unchanged to one instance.

use crate::base::begun::Begun;
use crate::base::step::Step;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::send::Checkout;
use crate::core::worker::Worker;
use crate::lane::instance::InstanceState;
use crate::resp::encode::{canonical, push_args};
use crate::resp::request::Args;
use crate::routing::merge::Merging;

impl Worker {
    /// Sends a command unchanged to one instance. Nearly every command goes this way: the lane is
    /// open and has room.
    pub(crate) fn route_to_instance(&mut self, place: usize, instance: usize, args: Args) -> Step {
        let client = &mut self.clients[place];
        let Some((lane, known)) = self.lanes.open_lane_mut(client.lane_set, instance) else {
            return self.route_to_closed(place, instance, args);
        };
        if known.is_full() {
            return self.wait_for_lane(place, lane);
        }
        let begin = known.out.len();
        push_args(&mut known.out, args);
        let length = known.out.len() - begin;
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        known.expect(place, client.generation, sequence, length, self.now_seconds);
        if !known.is_dirty {
            known.is_dirty = true;
            self.dirty_lanes.push(lane);
        }
        self.counters.lane_commands += 1;
        Step::Done
    }

    /// The same, if the lane must be opened first.
    fn route_to_closed(&mut self, place: usize, instance: usize, args: Args) -> Step {
        match self.check_out(place, instance) {
            Checkout::Lane(_) => self.route_to_instance(place, instance, args),
            Checkout::Full(lane) => self.wait_for_lane(place, lane),
            Checkout::Down => self.instance_down(place, instance),
        }
    }

    pub(crate) fn route_to_any(&mut self, place: usize, args: Args) -> Step {
        let instance = self.any_instance(place);
        self.route_to_instance(place, instance, args)
    }

    /// An instance that is ready. Clients are distributed over the instances; one client always
    /// gets the same one while all instances are ready.
    pub(crate) fn any_instance(&self, place: usize) -> usize {
        let count = self.instances.len();
        let first = usize::try_from(self.clients[place].session.id).unwrap_or(0) % count;
        let is_ready = |index: &usize| matches!(self.instances[*index], InstanceState::Ready(_));
        (0..count).map(|step| (first + step) % count).find(is_ready).unwrap_or(first)
    }

    pub(crate) fn owe_merging(&mut self, place: usize, mut merging: Merging, args: Args) -> u32 {
        merging.begun = Some(Begun { raw: canonical(args), at: self.now });
        let client = &mut self.clients[place];
        client.owe(Owed::Merging(Box::new(merging), client.last_row()))
    }

    /// True, and the gate is shut, while the client's earlier commands are not answered.
    pub(crate) fn must_drain(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        if client.owed.is_empty() {
            return false;
        }
        client.gate = Gate::Drain;
        true
    }
}
