//! `client-output-buffer-limit`: how many bytes may wait for a client that does not read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The limits of one class of clients; 0 means no limit.
#[derive(Debug, Default)]
pub struct Limit {
    hard: AtomicU64,
    pub(crate) soft: AtomicU64,
    pub(crate) soft_seconds: AtomicU64,
}

impl Limit {
    /// Sets the bytes above which a client is closed at once, and the bytes above which it may stay
    /// for so many seconds.
    pub fn set(&self, hard: u64, soft: u64, soft_seconds: u64) {
        self.hard.store(hard, Relaxed);
        self.soft.store(soft, Relaxed);
        self.soft_seconds.store(soft_seconds, Relaxed);
    }

    /// The bytes above which a client is closed at once.
    #[must_use]
    pub fn hard(&self) -> usize {
        let hard = usize::try_from(self.hard.load(Relaxed)).unwrap_or(usize::MAX);
        if hard == 0 { usize::MAX } else { hard }
    }
}

/// The limits of the classes that exist here; there are no replicas.
#[derive(Debug, Default)]
pub struct OutputLimits {
    /// Clients without subscriptions.
    pub normal: Limit,
    /// Clients with subscriptions.
    pub pubsub: Limit,
}
