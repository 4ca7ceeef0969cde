//! One command to each of several instances: each gets its own keys, the replies are merged.

use crate::command::Row;
use crate::keys::Span;
use crate::merge::Merging;
use crate::merge_kind::Merge;
use crate::number::push_u64;
use crate::placement::Placement;
use crate::reach::Reach;
use crate::request::{Args, push_array, push_bulk, push_bulks};
use crate::shared::Shared;
use crate::step::Step;
use crate::worker::Worker;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// A command, and where its keys are.
#[derive(Clone, Copy)]
pub(crate) struct Whole<'a> {
    pub(crate) args: Args<'a>,
    span: Span,
    /// The argument that says how many keys there are, if one does.
    number_at: Option<usize>,
    /// The instance of each key.
    pub(crate) owners: &'a [u16],
}

impl<'a> Whole<'a> {
    /// `owners` is memory for it; `None` if the command has no keys, or ends in the middle.
    pub(crate) fn new(
        row: &Row,
        args: Args<'a>,
        db: u32,
        placement: &Placement,
        owners: &'a mut Vec<u16>,
    ) -> Option<Self> {
        let spec = row.keys.first()?;
        let span = spec.span(args).filter(|span| span.last + span.step <= args.len())?;
        owners.clear();
        owners.extend(span.indices().map(|index| placement.instance(db, args.get(index))));
        Some(Self { args, span, number_at: spec.number_at(args), owners })
    }

    /// Each key's argument, and its instance.
    pub(crate) fn keys(self) -> impl Iterator<Item = (usize, usize)> {
        self.span.indices().zip(self.owners.iter().map(|&owner| usize::from(owner)))
    }

    /// How many of the keys an instance has.
    pub(crate) fn count(self, instance: usize) -> usize {
        self.keys().filter(|&(_, owner)| owner == instance).count()
    }

    /// Appends the command that an instance with so many gets.
    pub(crate) fn push_part(self, instance: usize, keys: usize, out: &mut Vec<u8>) {
        self.push_head(keys, out);
        let own = self.keys().filter(|&(_, owner)| owner == instance);
        own.for_each(|(at, _)| self.push_key(at, out));
        self.push_tail(out);
    }

    /// The command for the first keys, as many as one instance has, and that instance.
    pub(crate) fn begin(self) -> (usize, Vec<u8>) {
        let (mut out, first) = (Vec::new(), self.owners[0]);
        let count = self.owners.iter().take_while(|&&owner| owner == first).count();
        self.push_some(0, count, &mut out);
        (usize::from(first), out)
    }

    /// Appends the command for so many keys, from this one on.
    pub(crate) fn push_some(self, number: usize, count: usize, out: &mut Vec<u8>) {
        self.push_head(count, out);
        self.keys().skip(number).take(count).for_each(|(at, _)| self.push_key(at, out));
        self.push_tail(out);
    }

    /// What comes before the keys of an instance that has so many.
    fn push_head(self, keys: usize, out: &mut Vec<u8>) {
        let Self { args, span, number_at, .. } = self;
        push_array(out, span.first + keys * span.step + self.tail().len());
        for index in 0..span.first {
            if Some(index) == number_at {
                let mut digits = Vec::new();
                push_u64(&mut digits, keys as u64);
                push_bulk(out, &digits);
            } else {
                push_bulk(out, args.get(index));
            }
        }
    }

    /// The arguments of one key.
    fn push_key(self, at: usize, out: &mut Vec<u8>) {
        push_bulks(out, self.args, at..at + self.span.step);
    }

    fn push_tail(self, out: &mut Vec<u8>) {
        push_bulks(out, self.args, self.tail());
    }

    /// The arguments behind the keys.
    fn tail(self) -> Range<usize> {
        self.span.last + self.span.step..self.args.len()
    }
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
    ) -> Step {
        let mut owners = std::mem::take(&mut self.owners);
        let taken = match Whole::new(row, args, self.db(place), &shared.placement, &mut owners) {
            Some(whole) => self.route_whole(place, row, merge, whole),
            None => self.route_to_any(place, args), // it will say what is missing
        };
        self.owners = owners;
        taken
    }

    fn route_whole(&mut self, place: usize, row: &Row, merge: Merge, whole: Whole) -> Step {
        let first = whole.owners[0];
        let home = whole.owners.iter().all(|&owner| owner == first).then(|| usize::from(first));
        if row.writes && self.must_wait_for_writes(place, home) {
            return Step::Blocked;
        }
        match home {
            Some(home) => self.route_to_instance(place, home, whole.args),
            // The log shall have it as it was sent: no instance sees it so.
            None if self.shared.settings.log_all.load(Relaxed) => {
                self.route_to_coordinator(place, whole.args)
            }
            None => self.split(place, merge, whole),
        }
    }

    fn split(&mut self, place: usize, merge: Merge, whole: Whole) -> Step {
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
            let merging = Merging::new(merge, shares.len(), parts, order);
            let sequence = self.owe_merging(place, merging, whole.args);
            self.write_shares(place, sequence, whole, &mut shares);
        }
        self.shares = shares;
        reached.err().unwrap_or(Step::Done)
    }

    /// Finds the lanes, or says what became of the command because one cannot be had: nothing is
    /// sent unless all can be.
    fn reach_shares(&mut self, place: usize, shares: &mut [Share]) -> Result<(), Step> {
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
