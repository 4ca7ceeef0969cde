//! Blocking commands that are tried without blocking.

use crate::lane::in_flight::Watermark;
use crate::tables::lock::Fingerprint;
use std::sync::Arc;

/// An attempt in flight.
#[derive(Debug)]
pub(crate) struct AttemptInFlight {
    pub(crate) mark: Watermark,
    pub(crate) keys: Arc<[Fingerprint]>,
    /// It reads for a consumer group: it ends with an error when its stream is deleted, as the
    /// group goes with it.
    pub(crate) is_of_group: bool,
}

/// Attempts in flight; some of them may have ended.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) known: Vec<AttemptInFlight>,
    /// Some attempts may be of groups.
    pub(crate) has_groups: bool,
}
