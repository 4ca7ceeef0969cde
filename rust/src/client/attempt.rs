//! A non-blocking attempt of a blocking command, and what runs before it.

use crate::base::begun::Begun;
use crate::lane::in_flight::Watermark;
use crate::tables::lock::Fingerprint;
use std::sync::Arc;

/// What must end before a client's next command runs.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) marks: Vec<Watermark>,
    /// The lock of the last locked pop.
    pub(crate) last_pop: Option<u64>,
}

/// A blocking command in flight as an attempt; it may have to wait afterwards.
#[derive(Debug)]
pub struct Attempt {
    /// The command.
    pub(crate) begun: Begun,
    /// Its row.
    pub row: u32,
    /// Its keys.
    pub(crate) keys: Arc<[Fingerprint]>,
    /// Some of its keys are on other instances than the one that is tried.
    pub(crate) is_on_several: bool,
    /// The number of replies before the one to EXEC.
    pub(crate) before: usize,
    /// The instance did not queue it.
    pub(crate) is_refused: bool,
}
