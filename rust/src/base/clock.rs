//! The time, as a worker measures it.

use rustix::time::{ClockId, clock_gettime};

/// The nanoseconds of a monotonic clock.
pub(crate) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The whole seconds of that clock.
pub(crate) fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000_000
}
