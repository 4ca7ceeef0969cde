//! Whether a client is read and written: its buffers, their limits, and its gate.

use crate::client::client::{Client, OWED_LIMIT, UNREAD_LIMIT};
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::net::socket;
use crate::tables::output_limits::OutputLimits;
use crate::tables::settings::Settings;
use std::sync::atomic::Ordering::Relaxed;

impl Client {
    /// The gate that applies once the present one opens.
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

    /// Adds bytes of a reply. Bytes that the socket takes at once are not copied.
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) -> u64 {
        let mut written = 0;
        // If the socket is closed, the next write to it reports that.
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

    /// Bytes of replies that the client has not read.
    #[must_use]
    #[inline]
    pub fn unread(&self) -> usize {
        self.pending() + self.held
    }

    /// True if the `kept` bytes of its input should not be taken as commands now.
    #[must_use]
    #[inline]
    pub fn is_behind(&self, kept: usize, settings: &Settings) -> bool {
        self.owed.len() >= OWED_LIMIT
            || self.unread() >= UNREAD_LIMIT && self.keeps_rather(kept, settings)
    }

    /// True if the client reads so little that its input should stay as commands, as long as that
    /// takes fewer bytes than the replies that it has not read. So a client that writes everything
    /// before it reads anything is read to the end, with the least memory.
    #[must_use]
    #[inline]
    pub fn keeps_rather(&self, kept: usize, settings: &Settings) -> bool {
        let most = settings.input_limit() / 2;
        let is_less = kept <= self.unread() && kept < most;
        // A client may read nothing before it has ended its side, and may be gone after that: there
        // is no waiting for it to read.
        let waits_for_reader = !self.has_ended || self.unread() >= most;
        !self.authenticated || (is_less && waits_for_reader)
    }

    /// True if the next command may take the short path.
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

    /// True if the client must be closed. Notes since when it has been over the soft limit.
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

    /// Notes how many bytes were written to the client at once.
    #[inline]
    pub(crate) fn note_written(&mut self, bytes: usize) {
        self.bulky_writes = if bytes >= BULKY {
            self.bulky_writes.saturating_add(1).min(OFTEN)
        } else {
            self.bulky_writes.saturating_sub(1)
        };
    }

    /// True if the client should change between ordinary and bulky lanes, and may do so now.
    #[inline]
    pub(crate) fn is_misplaced(&self) -> bool {
        let unwanted = if self.is_striped { 0 } else { OFTEN };
        self.bulky_writes == unwanted && self.owed.is_empty()
    }
}

/// Bytes of replies in one write that make it bulky: a pipeline of 64 short replies has fewer.
const BULKY: usize = 6 * 1024;

/// Bulky writes in a row (roughly) after which a client uses a lane for bulky replies.
const OFTEN: u8 = 16;
