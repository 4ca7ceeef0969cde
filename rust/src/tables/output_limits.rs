//! `client-output-buffer-limit`: how much may wait for a client that does not read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The limits of one class of clients; 0 means none.
#[derive(Debug, Default)]
pub struct Limit {
    hard: AtomicU64,
    pub(crate) soft: AtomicU64,
    pub(crate) soft_seconds: AtomicU64,
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
