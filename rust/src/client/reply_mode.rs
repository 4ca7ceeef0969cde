//! CLIENT REPLY OFF and SKIP: the replies that a client does not want.
//!
//! Its commands run and are owed as always, so that order and gates hold. An unwanted reply is
//! dropped where it would move to the client's output.

use std::collections::VecDeque;

/// The replies that a client does not want, by sequence number.
#[derive(Debug, Default)]
pub struct ReplyMode {
    /// Unwanted ranges, oldest first: from the first number up to, but without, the second.
    ranges: VecDeque<(u32, u32)>,
    /// Every reply from this number on is unwanted.
    off_from: Option<u32>,
    /// The reply after that of EXEC, which is running, is unwanted.
    after_exec: bool,
}

impl ReplyMode {
    /// No reply from `sequence` on is wanted.
    pub fn switch_off(&mut self, sequence: u32) {
        self.answered(sequence); // SKIP was for this command
        self.off_from.get_or_insert(sequence);
    }

    /// Every reply from `sequence` on is wanted.
    pub fn switch_on(&mut self, sequence: u32) {
        if let Some(from) = self.off_from.take()
            && from != sequence
        {
            self.ranges.push_back((from, sequence));
        }
        // A SKIP whose command has not come is cancelled.
        self.ranges.retain(|&(from, _)| from != sequence);
    }

    /// RESET: all later replies are wanted; its own is unchanged.
    pub fn reset(&mut self) {
        self.off_from = None; // everything before it is answered
    }

    /// The reply at `sequence` is not wanted.
    pub fn skip(&mut self, sequence: u32) {
        if self.off_from.is_none() {
            self.ranges.retain(|&(from, _)| from != sequence);
            self.ranges.push_back((sequence, sequence.wrapping_add(1)));
        }
    }

    /// The same inside a transaction, where the next command follows EXEC.
    pub fn skip_after_exec(&mut self) {
        self.after_exec |= self.off_from.is_none();
    }

    /// EXEC has run.
    pub fn end_exec(&mut self, sequence: u32) {
        if std::mem::take(&mut self.after_exec) {
            self.skip(sequence);
        }
    }

    /// The reply at `sequence` was sent without an entry; the next reply takes its number.
    pub fn answered(&mut self, sequence: u32) {
        self.ranges.retain(|&(from, _)| from != sequence);
    }

    /// True if the reply at `sequence` is not wanted.
    #[must_use]
    pub fn drops(&self, sequence: u32) -> bool {
        let is_from = |from: u32| sequence.wrapping_sub(from) < u32::MAX / 2;
        self.off_from.is_some_and(is_from)
            || self.ranges.iter().any(|&(from, to)| is_from(from) && !is_from(to))
    }

    /// Drops ranges before `front`; true if every reply is wanted again.
    pub fn is_over(&mut self, front: u32) -> bool {
        let is_past = |to: u32| front.wrapping_sub(to) < u32::MAX / 2;
        while self.ranges.front().is_some_and(|&(_, to)| is_past(to)) {
            self.ranges.pop_front();
        }
        // Sequence numbers wrap around after four thousand million replies.
        self.off_from = self.off_from.map(|from| if is_past(from) { front } else { from });
        self.ranges.is_empty() && self.off_from.is_none() && !self.after_exec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_and_on_across_the_end_of_the_numbers() {
        let mut reply_mode = ReplyMode::default();
        reply_mode.switch_off(u32::MAX);
        assert!(
            reply_mode.drops(u32::MAX) && reply_mode.drops(1) && !reply_mode.drops(u32::MAX - 1)
        );
        reply_mode.switch_on(2);
        assert!(reply_mode.drops(1) && !reply_mode.drops(2));
        assert!(!reply_mode.is_over(1));
        assert!(reply_mode.is_over(2));
    }

    #[test]
    fn off_lasts_however_many_replies_there_are() {
        let mut reply_mode = ReplyMode::default();
        let mut front: u32 = 7;
        reply_mode.switch_off(front);
        for _ in 0..10 {
            assert!(reply_mode.drops(front) && reply_mode.drops(front.wrapping_add(1000)));
            front = front.wrapping_add(1 << 30);
            assert!(!reply_mode.is_over(front));
        }
        reply_mode.switch_on(front);
        assert!(reply_mode.is_over(front) && !reply_mode.drops(front));
    }

    #[test]
    fn skip_is_for_one_reply_and_on_takes_it_back() {
        let mut reply_mode = ReplyMode::default();
        reply_mode.skip(7);
        reply_mode.skip(7);
        assert!(!reply_mode.drops(6) && reply_mode.drops(7) && !reply_mode.drops(8));
        reply_mode.switch_on(7);
        assert!(!reply_mode.drops(7) && reply_mode.is_over(7));
    }
}
