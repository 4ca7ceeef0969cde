//! Busy waiting: if a reply is about to come, polling costs less than to sleep and to be woken.
//!
//! Waking a thread on an idle core takes tens of microseconds, most of all on virtual machines; an
//! instance answers within a few. So only a worker with a core of its own waits like this, only
//! while a reply is due, for `SPIN_NANOSECONDS` at most, and only as long as it mostly helps.

/// About the time that waking takes; to wait longer than that cannot pay.
pub(crate) const SPIN_NANOSECONDS: u64 = 50_000;

/// The score of a worker if every wait ended in time.
const BEST: u32 = 256;

/// Below this score it does not pay: three of four waits were in vain.
const POOR: u32 = BEST / 4;

/// The number of skipped waits after which it is tried again.
const RETRY: u32 = 64;

/// The weight of the last wait is one in this many.
const MEMORY: u32 = 8;

/// The recent success of busy waiting.
#[derive(Debug)]
pub(crate) struct Spin {
    is_allowed: bool,
    score: u32,
    skipped: u32,
}

impl Spin {
    pub(crate) fn new(is_allowed: bool) -> Self {
        Self { is_allowed, score: BEST / 2, skipped: 0 }
    }

    /// True if it pays to wait busily this time.
    pub(crate) fn is_wise(&mut self) -> bool {
        if !self.is_allowed {
            return false;
        }
        if self.score < POOR && self.skipped < RETRY {
            self.skipped += 1;
            return false;
        }
        self.skipped = 0;
        true
    }

    /// Notes whether something came in time.
    pub(crate) fn note(&mut self, has_come: bool) {
        let missing = if has_come { BEST - self.score } else { 0 };
        self.score = self.score + missing / MEMORY - if has_come { 0 } else { self.score / MEMORY };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_is_left_but_tried_again() {
        let mut spin = Spin::new(true);
        while spin.is_wise() {
            spin.note(false);
        }
        let skipped = (0..2 * RETRY).take_while(|_| !spin.is_wise()).count();
        assert!(skipped > 0 && skipped < RETRY as usize);
        for _ in 0..MEMORY {
            spin.note(true);
        }
        assert!(spin.is_wise() && spin.is_wise());
    }

    #[test]
    fn a_core_that_is_shared_is_left_to_others() {
        assert!(!Spin::new(false).is_wise());
    }
}
