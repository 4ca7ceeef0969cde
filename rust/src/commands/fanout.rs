//! Sends one command to several instances: each gets its own keys, and the replies are merged.

use crate::base::step::Step;
use crate::catalog::merge_kind::Merge;
use crate::catalog::table::Row;
use crate::core::send::Checkout;
use crate::core::worker::Worker;
use crate::resp::request::Args;
use crate::routing::merge::Merging;
use crate::routing::parts::{InstancePart, SplitCommand};
use crate::threads::shared::Shared;
use std::sync::atomic::Ordering::Relaxed;

impl Worker {
    /// Sends the command to each instance that has some of its keys.
    pub(crate) fn route_to_owners(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        shared: &Shared,
    ) -> Step {
        let mut owners = std::mem::take(&mut self.owners);
        let taken =
            match SplitCommand::new(row, args, self.db(place), &shared.placement, &mut owners) {
                Some(whole) => self.route_whole(place, row, merge, whole),
                None => self.route_to_any(place, args), // its error tells what is missing
            };
        self.owners = owners;
        taken
    }

    fn route_whole(&mut self, place: usize, row: &Row, merge: Merge, whole: SplitCommand) -> Step {
        let first = whole.owners[0];
        let home = whole.owners.iter().all(|&owner| owner == first).then(|| usize::from(first));
        if row.writes && self.must_wait_for_writes(place, home) {
            return Step::Blocked;
        }
        match home {
            Some(home) => self.route_to_instance(place, home, whole.args),
            // The log needs it as it was sent, and no instance gets it so.
            None if self.shared.settings.log_all.load(Relaxed) => {
                self.route_to_coordinator(place, whole.args)
            }
            None => self.split(place, merge, whole),
        }
    }

    fn split(&mut self, place: usize, merge: Merge, whole: SplitCommand) -> Step {
        let mut shares = std::mem::take(&mut self.shares);
        shares.clear();
        shares.resize(self.instances.len(), InstancePart::default());
        for &owner in whole.owners {
            shares[usize::from(owner)].keys += 1;
        }
        let reached = self.check_out_parts(place, &mut shares);
        if reached.is_ok() {
            let parts = shares.iter().filter(|share| share.keys > 0).count();
            let order = if merge == Merge::Keyed { whole.owners.to_vec() } else { Vec::new() };
            let merging = Merging::new(merge, shares.len(), parts, order);
            let sequence = self.owe_merging(place, merging, whole.args);
            self.write_shares(place, sequence, whole, &mut shares);
        }
        self.shares = shares;
        reached.err().unwrap_or(Step::Done)
    }

    /// Finds the lanes, or returns how the command proceeds because one is missing: nothing is sent
    /// unless all are available.
    fn check_out_parts(&mut self, place: usize, shares: &mut [InstancePart]) -> Result<(), Step> {
        for (instance, share) in shares.iter_mut().enumerate().filter(|(_, share)| share.keys > 0) {
            match self.check_out(place, instance) {
                Checkout::Lane(lane) => share.lane = lane,
                Checkout::Full(lane) => return Err(self.wait_for_lane(place, lane)),
                Checkout::Down => return Err(self.instance_down(place, instance)),
            }
        }
        Ok(())
    }

    /// Writes each part to its lane, with the keys in the client's order.
    fn write_shares(
        &mut self,
        place: usize,
        sequence: u32,
        whole: SplitCommand,
        shares: &mut [InstancePart],
    ) {
        for share in shares.iter_mut().filter(|share| share.keys > 0) {
            let Some(lane) = self.lanes.get_mut(share.lane) else { continue };
            share.begin = lane.out.len();
            whole.push_head(share.keys, &mut lane.out);
        }
        for (at, owner) in whole.keys() {
            let Some(lane) = self.lanes.get_mut(shares[owner].lane) else { continue };
            whole.push_key(at, &mut lane.out);
        }
        for share in shares.iter().filter(|share| share.keys > 0) {
            let Some(lane) = self.lanes.get_mut(share.lane) else { continue };
            whole.push_tail(&mut lane.out);
            let length = lane.out.len() - share.begin;
            self.expect(place, share.lane, sequence, length);
        }
    }
}
