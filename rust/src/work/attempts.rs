//! Blocking commands that are being tried without blocking.

use crate::lane::in_flight::Watermark;
use crate::tables::lock::Fingerprint;
use std::sync::Arc;

/// A command that is being tried.
#[derive(Debug)]
pub(crate) struct AttemptInFlight {
    pub(crate) mark: Watermark,
    pub(crate) keys: Arc<[Fingerprint]>,
    /// It ends, with an error, when its key does: a consumer group goes with its stream.
    pub(crate) is_of_group: bool,
}

/// Commands that are being tried; some that were.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) known: Vec<AttemptInFlight>,
    /// Some may be of groups.
    pub(crate) has_groups: bool,
}
