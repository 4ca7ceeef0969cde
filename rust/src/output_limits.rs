//! `client-output-buffer-limit`: how much may wait for a client that does not read.

use crate::client::Client;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The limits of one class of clients; 0 means none.
#[derive(Debug, Default)]
pub struct Limit {
    hard: AtomicU64,
    soft: AtomicU64,
    soft_seconds: AtomicU64,
}

impl Limit {
    /// Bytes above which a client is closed at once, and bytes above which it may stay so many
    /// seconds.
    pub fn set(&self, hard: u64, soft: u64, soft_seconds: u64) {
        self.hard.store(hard, Relaxed);
        self.soft.store(soft, Relaxed);
        self.soft_seconds.store(soft_seconds, Relaxed);
    }

    /// Bytes above which a client is closed at once.
    #[must_use]
    pub fn hard(&self) -> usize {
        let hard = usize::try_from(self.hard.load(Relaxed)).unwrap_or(usize::MAX);
        if hard == 0 { usize::MAX } else { hard }
    }
}

/// The limits of the classes that we have: nobody replicates from us.
#[derive(Debug, Default)]
pub struct OutputLimits {
    /// Clients without subscriptions.
    pub normal: Limit,
    /// Clients with some.
    pub pubsub: Limit,
}

impl Client {
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
}
