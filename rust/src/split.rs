//! One command to each of several instances: each gets its own keys, the replies are merged.

use crate::command::Row;
use crate::forward::Taken;
use crate::keys::Span;
use crate::merge::{Merge, Merging};
use crate::number::push_u64;
use crate::request::{Args, push_array, push_bulk};
use crate::shared::Shared;
use crate::worker::Worker;

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
            self.split(place, row, merge, args, span, &owners)
        };
        self.owners = owners;
        taken
    }

    fn split(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        span: Span,
        owners: &[u16],
    ) -> Taken {
        let mut counts = vec![0usize; self.instances.len()];
        for &owner in owners {
            counts[usize::from(owner)] += 1;
        }
        let involved: Vec<usize> = (0..counts.len()).filter(|&index| counts[index] > 0).collect();
        let lanes = match self.reach_all(place, &involved) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let order = if merge == Merge::Keyed { owners.to_vec() } else { Vec::new() };
        let merging = Merging::new(merge, counts.len(), lanes.len(), order);
        let sequence = self.owe_merging(place, merging);

        let mut lane_of = vec![usize::MAX; counts.len()];
        let mut begins = vec![0usize; counts.len()];
        let suffix = span.last + span.step..args.len();
        let number_at = row.keys.first().and_then(|spec| spec.number_at(args));
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            lane_of[instance] = lane;
            let Some(lane) = self.lanes.get_mut(lane) else { continue };
            begins[instance] = lane.out.len();
            push_array(&mut lane.out, span.first + counts[instance] * span.step + suffix.len());
            for index in 0..span.first {
                if Some(index) == number_at {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, counts[instance] as u64);
                    push_bulk(&mut lane.out, &digits);
                } else {
                    push_bulk(&mut lane.out, args.get(index));
                }
            }
        }
        for (key, &owner) in span.indices().zip(owners) {
            let Some(lane) = self.lanes.get_mut(lane_of[usize::from(owner)]) else { continue };
            for index in key..key + span.step {
                push_bulk(&mut lane.out, args.get(index));
            }
        }
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            let begin = begins[instance];
            let Some(known) = self.lanes.get_mut(lane) else { continue };
            for index in suffix.clone() {
                push_bulk(&mut known.out, args.get(index));
            }
            let length = known.out.len() - begin;
            self.expect(place, lane, sequence, length);
        }
        Taken::Yes
    }
}
