//! Lanes that are set aside for a large reply.

use crate::lane::lane::Duty;
use crate::lane::pool::Lanes;

/// Lanes that have something big: most of `LANES_LIMIT` is for those that are shared.
const ASIDE_LIMIT: usize = 128;

impl Lanes {
    /// Nothing more is sent on a shared lane; false if too many are aside already.
    pub fn set_aside(&mut self, place: usize) -> bool {
        let has_room = self.has_room_aside();
        if has_room {
            self.hide(place);
            self.set_duty(place, Duty::Aside);
        }
        has_room
    }

    /// A lane that nobody uses is given to one client.
    pub(crate) fn lend(&mut self, place: usize) {
        self.set_duty(place, Duty::Upload);
    }

    /// What that client sent is complete.
    pub(crate) fn end_loan(&mut self, place: usize) {
        self.set_duty(place, Duty::Aside);
    }

    /// How many lanes have something big.
    #[must_use]
    pub fn count_aside(&self) -> usize {
        self.aside
    }

    /// True unless too many lanes are used for something big.
    #[must_use]
    pub fn has_room_aside(&self) -> bool {
        self.aside < ASIDE_LIMIT
    }
}
