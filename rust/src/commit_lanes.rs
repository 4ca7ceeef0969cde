//! The lanes of commits, among all lanes: each has one part of one commit at a time.

use crate::lane::Duty;
use crate::lanes::Lanes;
use crate::reply::Broken;

impl Lanes {
    /// Cuts the next reply to a commit: where it lies in `received`.
    ///
    /// # Errors
    /// `Broken` for what is no reply.
    pub(crate) fn next_of_commit(&mut self, place: usize) -> Result<Option<(u32, u32)>, Broken> {
        if !self.pass_opening(place)? {
            return Ok(None);
        }
        let lane = &mut self.open[place];
        let buffer = self.received.after(place, lane.start);
        if buffer.is_empty() {
            return Ok(None);
        }
        let Some(length) = lane.cutter.cut(buffer)? else { return Ok(None) };
        let start = lane.start;
        lane.start += length;
        let number = |offset| u32::try_from(offset).map_err(|_| Broken("buffer over 4 GB"));
        Ok(Some((number(start)?, number(length)?)))
    }

    /// True if the beginning of something is there that nobody has asked for.
    pub(crate) fn has_more(&self, place: usize) -> bool {
        let lane = &self.open[place];
        lane.opening == 0 && !self.received.after(place, lane.start).is_empty()
    }

    /// True for a lane of a commit.
    pub(crate) fn is_for_commit(&self, place: usize) -> bool {
        self.open[place].duty == Duty::Commit
    }
}
