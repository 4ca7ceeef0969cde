//! A watermark: what was in flight on a lane at some moment.

use crate::lane::lane::Lane;
use crate::lane::pool::Lanes;

/// What is in flight on a lane: it is answered when the lane has answered so many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watermark {
    pub(crate) lane: usize,
    serial: u64,
    answered: u64,
}

impl Watermark {
    /// All that is in flight; `None` if nothing is.
    pub(crate) fn of(place: usize, lane: &Lane) -> Option<Self> {
        let in_flight = lane.expects.len() as u64;
        let answered = lane.answered + in_flight;
        (in_flight > 0).then_some(Self { lane: place, serial: lane.serial, answered })
    }

    /// True until that has run.
    pub(crate) fn is_open(&self, lanes: &Lanes) -> bool {
        lanes.get(self.lane).is_some_and(|lane| {
            // What has begun to be answered has run; a client may take its time to read it.
            let has_run = lane.answered + u64::from(lane.cutter.is_within());
            lane.serial == self.serial && !lane.is_broken && has_run < self.answered
        })
    }
}
