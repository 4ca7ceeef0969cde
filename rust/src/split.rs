//! One command to each of several instances: each gets its own keys, the replies are merged.

use crate::command::Row;
use crate::forward::Taken;
use crate::keys::Span;
use crate::merge::{Merge, Merging};
use crate::number::push_u64;
use crate::reach::Reach;
use crate::request::{Args, push_array, push_bulk, push_bulks};
use crate::shared::Shared;
use crate::worker::Worker;

/// A command, and where its keys are.
#[derive(Clone, Copy)]
struct Whole<'a> {
    args: Args<'a>,
    span: Span,
    /// The argument that says how many keys there are, if one does.
    number_at: Option<usize>,
    /// The instance of each key.
    owners: &'a [u16],
}

/// What one instance gets of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    /// How many of the keys.
    keys: usize,
    /// The lane to it.
    lane: usize,
    /// Where its command begins in that lane's `out`.
    begin: usize,
}

impl Worker {
    /// One command to each instance that has some of the keys.
    pub(crate) fn route_to_owners(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        shared: &Shared,
    ) -> Taken {
        let Some(span) = row.keys.first().and_then(|spec| spec.span(args)) else {
            return self.route_to_any(place, args);
        };
        let end = span.last + span.step;
        if end > args.len() {
            return self.route_to_any(place, args); // a value is missing: any instance will say so
        }
        let db = self.db(place);
        let mut owners = std::mem::take(&mut self.owners);
        owners.clear();
        owners.extend(span.indices().map(|index| shared.placement.instance(db, args.get(index))));
        let home = owners.iter().all(|&owner| owner == owners[0]).then(|| usize::from(owners[0]));
        let taken = if row.writes && self.must_wait_for_writes(place, home) {
            Taken::NotYet
        } else if let Some(home) = home {
            self.route_to_instance(place, home, args)
        } else {
            let number_at = row.keys.first().and_then(|spec| spec.number_at(args));
            self.split(place, merge, Whole { args, span, number_at, owners: &owners })
        };
        self.owners = owners;
        taken
    }

    fn split(&mut self, place: usize, merge: Merge, whole: Whole) -> Taken {
        let mut shares = std::mem::take(&mut self.shares);
        shares.clear();
        shares.resize(self.instances.len(), Share::default());
        for &owner in whole.owners {
            shares[usize::from(owner)].keys += 1;
        }
        let reached = self.reach_shares(place, &mut shares);
        if reached.is_ok() {
            let parts = shares.iter().filter(|share| share.keys > 0).count();
            let order = if merge == Merge::Keyed { whole.owners.to_vec() } else { Vec::new() };
            let sequence = self.owe_merging(place, Merging::new(merge, shares.len(), parts, order));
            self.write_shares(place, sequence, whole, &mut shares);
        }
        self.shares = shares;
        reached.err().unwrap_or(Taken::Yes)
    }

    /// Finds the lanes, or says what became of the command because one cannot be had: nothing is
    /// sent unless all can be.
    fn reach_shares(&mut self, place: usize, shares: &mut [Share]) -> Result<(), Taken> {
        for (instance, share) in shares.iter_mut().enumerate().filter(|(_, share)| share.keys > 0) {
            match self.reach(place, instance) {
                Reach::Lane(lane) => share.lane = lane,
                Reach::Full(lane) => return Err(self.wait_for_lane(place, lane)),
                Reach::Down => return Err(self.instance_down(place, instance)),
            }
        }
        Ok(())
    }

    /// Writes each share to its lane, the keys in the client's order.
    fn write_shares(&mut self, place: usize, sequence: u32, whole: Whole, shares: &mut [Share]) {
        let Whole { args, span, number_at, owners } = whole;
        let suffix = span.last + span.step..args.len();
        for share in shares.iter_mut().filter(|share| share.keys > 0) {
            let Some(lane) = self.lanes.get_mut(share.lane) else { continue };
            share.begin = lane.out.len();
            push_array(&mut lane.out, span.first + share.keys * span.step + suffix.len());
            for index in 0..span.first {
                if Some(index) == number_at {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, share.keys as u64);
                    push_bulk(&mut lane.out, &digits);
                } else {
                    push_bulk(&mut lane.out, args.get(index));
                }
            }
        }
        for (key, &owner) in span.indices().zip(owners) {
            let Some(lane) = self.lanes.get_mut(shares[usize::from(owner)].lane) else { continue };
            push_bulks(&mut lane.out, args, key..key + span.step);
        }
        for share in shares.iter().filter(|share| share.keys > 0) {
            let Some(lane) = self.lanes.get_mut(share.lane) else { continue };
            push_bulks(&mut lane.out, args, suffix.clone());
            let length = lane.out.len() - share.begin;
            self.expect(place, share.lane, sequence, length);
        }
    }
}
