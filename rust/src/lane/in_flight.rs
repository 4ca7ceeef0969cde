//! A watermark: what was in flight on a lane at some moment.

use crate::lane::lane::Lane;
use crate::lane::pool::Lanes;

/// The commands in flight on a lane: they are answered once the lane has had this many answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watermark {
    pub(crate) lane: usize,
    serial: u64,
    answered: u64,
}

impl Watermark {
    /// The watermark of all commands in flight; `None` if there are none.
    pub(crate) fn of(place: usize, lane: &Lane) -> Option<Self> {
        let in_flight = lane.expects.len() as u64;
        let answered = lane.answered + in_flight;
        (in_flight > 0).then_some(Self { lane: place, serial: lane.serial, answered })
    }

    /// True until all those commands have run.
    pub(crate) fn is_open(&self, lanes: &Lanes) -> bool {
        lanes.get(self.lane).is_some_and(|lane| {
            // A command whose reply has begun has run, even if its client reads the reply slowly.
            let has_run = lane.answered + u64::from(lane.cutter.is_within());
            lane.serial == self.serial && !lane.is_broken && has_run < self.answered
        })
    }
}
