//! A command whose keys are on several instances, and the part of each of these.

use crate::base::number::push_u64;
use crate::catalog::key_specs::Span;
use crate::catalog::table::Row;
use crate::resp::request::{Args, push_array, push_bulk, push_bulks};
use crate::routing::placement::Placement;
use std::ops::Range;

/// A command, and where its keys are.
#[derive(Clone, Copy)]
pub(crate) struct SplitCommand<'a> {
    pub(crate) args: Args<'a>,
    span: Span,
    /// The argument with the number of keys, if there is one.
    number_at: Option<usize>,
    /// The instance of each key.
    pub(crate) owners: &'a [u16],
}

impl<'a> SplitCommand<'a> {
    /// `owners` is memory for the instances; `None` if the command has no keys, or is incomplete.
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

    /// The argument of each key, and its instance.
    pub(crate) fn keys(self) -> impl Iterator<Item = (usize, usize)> {
        self.span.indices().zip(self.owners.iter().map(|&owner| usize::from(owner)))
    }

    /// The number of keys that an instance has.
    pub(crate) fn count(self, instance: usize) -> usize {
        self.keys().filter(|&(_, owner)| owner == instance).count()
    }

    /// Appends the command for an instance with this number of keys.
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

    /// Appends the command for this number of keys, beginning with key `number`.
    pub(crate) fn push_some(self, number: usize, count: usize, out: &mut Vec<u8>) {
        self.push_head(count, out);
        self.keys().skip(number).take(count).for_each(|(at, _)| self.push_key(at, out));
        self.push_tail(out);
    }

    /// Appends what comes before the keys of an instance that has this number of keys.
    pub(crate) fn push_head(self, keys: usize, out: &mut Vec<u8>) {
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

    /// Appends the arguments of one key.
    pub(crate) fn push_key(self, at: usize, out: &mut Vec<u8>) {
        push_bulks(out, self.args, at..at + self.span.step);
    }

    pub(crate) fn push_tail(self, out: &mut Vec<u8>) {
        push_bulks(out, self.args, self.tail());
    }

    /// The arguments after the keys.
    fn tail(self) -> Range<usize> {
        self.span.last + self.span.step..self.args.len()
    }
}

/// The part of one instance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InstancePart {
    /// The number of keys.
    pub(crate) keys: usize,
    /// The lane to the instance.
    pub(crate) lane: usize,
    /// The offset of its command in that lane's `out`.
    pub(crate) begin: usize,
}
