//! Whether a client is read and written: its buffers, their limits, and what holds its commands back.

use crate::client::client::{Client, OWED_LIMIT, UNREAD_LIMIT};
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::net::socket;
use crate::tables::output_limits::OutputLimits;
use crate::tables::settings::Settings;
use std::sync::atomic::Ordering::Relaxed;

impl Client {
    /// What holds its commands back once its gate opens.
    pub(crate) fn next_gate(&mut self) -> Gate {
        if self.waits_aside && !self.owed.is_empty() {
            return Gate::Drain;
        }
        self.waits_aside = false;
        if self.upload.is_some() {
            Gate::Upload
        } else if !self.session.confirmations.is_empty() && self.executing.is_none() {
            Gate::Subscribing
        } else {
            Gate::Open
        }
    }

    /// Adds bytes of a reply: those that its socket takes at once are not copied.
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) -> u64 {
        let mut written = 0;
        // Should the socket be closed, whoever writes the rest will see that.
        if self.pending() == 0
            && !self.wants_write
            && let socket::Io::Moved(moved) = socket::write(&self.fd, bytes)
        {
            written = moved;
            self.session.output_bytes += written as u64;
        }
        self.out.extend_from_slice(&bytes[written..]);
        written as u64
    }

    /// Bytes of replies that it has not read.
    #[must_use]
    #[inline]
    pub fn unread(&self) -> usize {
        self.pending() + self.held
    }

    /// True if the `kept` bytes that it has sent should not be taken now.
    #[must_use]
    #[inline]
    pub fn is_behind(&self, kept: usize, settings: &Settings) -> bool {
        self.owed.len() >= OWED_LIMIT
            || self.unread() >= UNREAD_LIMIT && self.keeps_rather(kept, settings)
    }

    /// True if it reads so little that what it sends had better stay what it is: commands while
    /// these are fewer bytes than the replies that it has not read. So whoever writes everything
    /// before reading anything is read to the end, for the least memory.
    #[must_use]
    #[inline]
    pub fn keeps_rather(&self, kept: usize, settings: &Settings) -> bool {
        let most = settings.input_limit() / 2;
        let is_less = kept <= self.unread() && kept < most;
        // Whoever sends nothing more may have left, and reads nothing before it has.
        let waits_for_reader = !self.has_ended || self.unread() >= most;
        !self.authenticated || (is_less && waits_for_reader)
    }

    /// True if the next command may be an ordinary one.
    #[inline]
    pub(crate) fn is_ordinary(&self, kept: usize, settings: &Settings) -> bool {
        self.gate == Gate::Open
            && self.closing == Closing::No
            && self.authenticated
            && !self.is_restricted
            && !self.is_resp2_subscriber
            && !self.is_tracking
            && self.multi.is_none()
            && self.executing.is_none()
            && self.session.verdict.is_none()
            && !self.is_behind(kept, settings)
    }

    /// True if the client must be closed; notes since when it has been over the soft limit.
    pub fn is_over(&mut self, limits: &OutputLimits, now_seconds: u64) -> bool {
        let limit = if self.subscriptions.is_some() { &limits.pubsub } else { &limits.normal };
        let waiting = self.pending() + self.held + self.session.withheld;
        let soft = usize::try_from(limit.soft.load(Relaxed)).unwrap_or(usize::MAX);
        if soft == 0 || waiting <= soft {
            self.session.over_since = None;
        }
        if waiting > limit.hard() {
            return true;
        }
        if soft == 0 || waiting <= soft {
            return false;
        }
        let since = *self.session.over_since.get_or_insert(now_seconds);
        now_seconds.saturating_sub(since) > limit.soft_seconds.load(Relaxed)
    }

    /// Takes note of how much is written to it at once.
    #[inline]
    pub(crate) fn note_written(&mut self, bytes: usize) {
        self.bulky_writes = if bytes >= BULKY {
            self.bulky_writes.saturating_add(1).min(OFTEN)
        } else {
            self.bulky_writes.saturating_sub(1)
        };
    }

    /// True if it should change its lanes, and may.
    #[inline]
    pub(crate) fn is_misplaced(&self) -> bool {
        let unwanted = if self.is_striped { 0 } else { OFTEN };
        self.bulky_writes == unwanted && self.owed.is_empty()
    }
}

/// Bytes of replies in one write to a client that are bulky: a pipeline of 64 short ones has fewer.
const BULKY: usize = 6 * 1024;

/// Bulky writes in a row (more or less) after which a client is spread.
const OFTEN: u8 = 16;
