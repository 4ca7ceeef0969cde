//! The lanes of commits and of looks, among all lanes: a commit has one to each of its instances for
//! itself, looks share one to each.

use crate::lane::{Duty, Lane};
use crate::lanes::Lanes;
use crate::reply::{Broken, STRAY};
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
        self.cut_next(place)
    }

    /// True if the beginning of something is there that nobody has asked for.
    pub(crate) fn has_more(&self, place: usize) -> bool {
        let lane = &self.open[place];
        lane.opening == 0 && !self.received.after(place, lane.start).is_empty()
    }

    /// True for a lane of commits or looks.
    pub(crate) fn is_for_work(&self, place: usize) -> bool {
        matches!(self.open[place].duty, Duty::Commit | Duty::Looks)
    }

    /// The lane for questions of looks to an instance, if there is one.
    pub(crate) fn find_for_looks(&self, set: u32, instance: usize) -> Option<usize> {
        self.of_duty(Duty::Looks, set, instance).next()
    }

    /// The lanes on which a look, known by its lock, is owed something, and their instances.
    pub(crate) fn where_asked(&self, token: u64) -> Vec<(usize, usize)> {
        let is_its = |lane: &Lane| lane.questions.iter().any(|question| question.token == token);
        let lanes = self.open.iter().filter(|(_, lane)| is_its(lane));
        lanes.map(|(place, lane)| (place, lane.instance)).collect()
    }
}

impl Worker {
    /// Hands out the replies on a lane of commits or looks.
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
            Some(Duty::Looks) => self.take_answer(place, start, length),
            _ => Err(STRAY),
        }
    }
}
