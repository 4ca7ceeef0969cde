//! Lanes that are detached for a large reply.

use crate::lane::lane::Duty;
use crate::lane::pool::Lanes;

/// The most lanes for large commands and replies; most of `LANES_LIMIT` is for shared ones.
const ASIDE_LIMIT: usize = 128;

impl Lanes {
    /// Detaches a shared lane, which then gets no new commands; false if too many are detached
    /// already.
    pub fn set_aside(&mut self, place: usize) -> bool {
        let has_room = self.has_room_aside();
        if has_room {
            self.hide(place);
            self.set_duty(place, Duty::Aside);
        }
        has_room
    }

    /// Gives an unused lane to one client, for a large command.
    pub(crate) fn lend(&mut self, place: usize) {
        self.set_duty(place, Duty::Upload);
    }

    /// That client's command is complete.
    pub(crate) fn end_loan(&mut self, place: usize) {
        self.set_duty(place, Duty::Aside);
    }

    /// The number of lanes used for large commands or replies.
    #[must_use]
    pub fn count_aside(&self) -> usize {
        self.aside
    }

    /// True unless too many lanes are used for large commands or replies.
    #[must_use]
    pub fn has_room_aside(&self) -> bool {
        self.aside < ASIDE_LIMIT
    }
}
