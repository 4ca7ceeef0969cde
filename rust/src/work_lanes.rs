//! The lanes of commits and looks, among all lanes: each has one part of one of these at a time.

use crate::commits::STRAY;
use crate::lane::{Duty, Work};
use crate::lanes::Lanes;
use crate::reply::Broken;
use crate::worker::Worker;

impl Lanes {
    /// Cuts the next reply to a commit or a look: where it lies in `received`.
    ///
    /// # Errors
    /// `Broken` for what is no reply.
    pub(crate) fn next_of_work(&mut self, place: usize) -> Result<Option<(u32, u32)>, Broken> {
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

    /// True for a lane of a commit or a look.
    pub(crate) fn is_for_work(&self, place: usize) -> bool {
        self.open[place].duty == Duty::Work
    }
}

impl Worker {
    /// Hands out the replies on a lane of a commit or a look.
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

    /// True while replies are still to come on a lane of a commit or a look.
    fn is_owed(&self, place: usize) -> bool {
        let Some(lane) = self.lanes.get(place) else { return false };
        let to_come = match lane.work {
            Some(Work::Commit(key)) => self.commits.to_come(key, lane.instance),
            Some(Work::Look(key)) => self.looks.to_come(key, lane.instance),
            None => 0,
        };
        to_come > 0
    }

    fn take_work(&mut self, place: usize, start: u32, length: u32) -> Result<(), Broken> {
        match self.lanes.get(place).and_then(|lane| lane.work).ok_or(STRAY)? {
            Work::Commit(key) => self.take_reply(key, place, start, length),
            Work::Look(key) => self.take_answer(key, place, start, length),
        }
    }
}
