//! The lanes of commits and of locked pops.

use crate::lane::lane::{Duty, Lane};
use crate::lane::pool::Lanes;
use crate::resp::reply::Broken;

impl Lanes {
    /// Cuts the next reply to a commit or a locked pop. Returns its place in `received`.
    ///
    /// # Errors
    /// `Broken` for bytes that are no reply.
    pub(crate) fn next_of_work(&mut self, place: usize) -> Result<Option<(u32, u32)>, Broken> {
        if !self.pass_opening(place)? {
            return Ok(None);
        }
        self.cut_next(place)
    }

    /// True if bytes have come that belong to no command.
    pub(crate) fn has_more(&self, place: usize) -> bool {
        let lane = &self.open[place];
        lane.opening == 0 && !self.received.after(place, lane.start).is_empty()
    }

    /// True for a lane of commits or locked pops.
    pub(crate) fn is_for_work(&self, place: usize) -> bool {
        matches!(self.open[place].duty, Duty::Commit | Duty::LockedPops)
    }

    /// The lane of locked pops to an instance, if there is one.
    pub(crate) fn find_for_pops(&self, set: u32, instance: usize) -> Option<usize> {
        self.of_duty(Duty::LockedPops, set, instance).next()
    }

    /// The lanes on which the locked pop with this lock still waits for replies, and their
    /// instances.
    pub(crate) fn where_asked(&self, token: u64) -> Vec<(usize, usize)> {
        let is_its = |lane: &Lane| lane.questions.iter().any(|question| question.token == token);
        let lanes = self.open.iter().filter(|(_, lane)| is_its(lane));
        lanes.map(|(place, lane)| (place, lane.instance)).collect()
    }
}
