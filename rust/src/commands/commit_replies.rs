//! Replies on the lanes of commits and of locked pops. A commit has one lane of its own to each of
//! its instances; all locked pops share one to each.

use crate::core::worker::Worker;
use crate::lane::lane::Duty;
use crate::resp::reply::{Broken, STRAY};

impl Worker {
    /// Delivers the replies on a lane of commits or locked pops.
    pub(crate) fn cut_work(&mut self, place: usize) {
        loop {
            match self.lanes.next_of_work(place) {
                Ok(Some((start, length))) if self.take_work(place, start, length).is_ok() => {}
                // Half of a stray reply would become the beginning of the next one.
                Ok(None) if self.is_owed(place) || !self.lanes.has_more(place) => break,
                _ => return self.break_lane(place),
            }
        }
        if self.lanes.get(place).is_some_and(|lane| lane.can_write() && !lane.wants_write) {
            self.mark_lane_dirty(place);
        }
        if self.lanes.get(place).is_some_and(|lane| lane.readable) {
            self.ready_lanes.push(place);
        }
    }

    /// True while replies are still to come.
    fn is_owed(&self, place: usize) -> bool {
        let Some(lane) = self.lanes.get(place) else { return false };
        !lane.questions.is_empty()
            || lane.commit.is_some_and(|key| self.commits.to_come(key, lane.instance) > 0)
    }

    fn take_work(&mut self, place: usize, start: u32, length: u32) -> Result<(), Broken> {
        match self.lanes.get(place).map(|lane| lane.duty) {
            Some(Duty::Commit) => self.take_reply(place, start, length),
            Some(Duty::LockedPops) => self.take_pop_reply(place, start, length),
            _ => Err(STRAY),
        }
    }
}
