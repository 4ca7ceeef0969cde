//! The lanes for scripts in the pool: one for each state and instance.

use crate::lane::lane::{Duty, Expect};
use crate::lane::pool::Lanes;
use crate::lane::script_fences::{Block, Fences};
use crate::resp::reply::{Broken, STRAY};

impl Lanes {
    /// The lane for scripts of a set to an instance.
    pub(crate) fn script_lane(&self, set: u32, instance: usize) -> Option<usize> {
        self.scripts.get(&(set, instance)).copied()
    }

    /// True for a lane for scripts.
    pub(crate) fn is_for_scripts(&self, place: usize) -> bool {
        self.open[place].scripts.is_some()
    }

    /// The places of the lanes for scripts.
    pub(crate) fn of_scripts(&self) -> Vec<usize> {
        self.scripts.values().copied().collect()
    }

    /// Makes an unused lane one for scripts; `id` must be unique.
    pub(crate) fn give_to_scripts(&mut self, place: usize, id: String) {
        self.set_duty(place, Duty::Scripts);
        let lane = &mut self.open[place];
        let which = (lane.set, lane.instance);
        let fences = self.guards.remove(&which);
        lane.scripts = Some(fences.unwrap_or_else(|| Box::new(Fences::new(id))));
        self.scripts.insert(which, place);
    }

    /// Hides a lane from new scripts.
    pub(crate) fn hide_from_scripts(&mut self, place: usize) {
        let lane = &self.open[place];
        if self.script_lane(lane.set, lane.instance) == Some(place) {
            self.scripts.remove(&(lane.set, lane.instance));
        }
    }

    /// Cuts the replies of the next script. Returns their offset, their outcome, and their
    /// destination.
    ///
    /// # Errors
    /// `Broken` for replies that no server sends.
    pub(crate) fn next_block(
        &mut self,
        place: usize,
        now: u64,
    ) -> Result<Option<(usize, Block, Expect)>, Broken> {
        let lane = &mut self.open[place];
        let buffer = self.received.after(place, lane.start);
        if lane.opening > 0 || buffer.is_empty() {
            return Ok(None);
        }
        let fences = lane.scripts.as_mut().ok_or(Broken("no lane for scripts"))?;
        let Some(block) = fences.cut(buffer, now)? else { return Ok(None) };
        let start = lane.start;
        lane.start += block.length;
        lane.answered += 1;
        let expect = lane.expects.pop_front().ok_or(STRAY)?;
        Ok(Some((start, block, expect)))
    }
}
