//! A blocking command that is tried without blocking, and what is ahead of it.

use crate::base::begun::Begun;
use crate::lane::in_flight::Watermark;
use crate::tables::lock::Fingerprint;
use std::sync::Arc;

/// What is ahead of a client's next command.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) marks: Vec<Watermark>,
    /// The lock of the last locked pop.
    pub(crate) last_pop: Option<u64>,
}

/// A command on its way that may have to wait.
#[derive(Debug)]
pub struct Attempt {
    /// The command.
    pub(crate) begun: Begun,
    /// Its row.
    pub row: u32,
    /// Its keys.
    pub(crate) keys: Arc<[Fingerprint]>,
    /// Not all its keys are on the instance that is tried.
    pub(crate) is_on_several: bool,
    /// Replies that come before the one of EXEC.
    pub(crate) before: usize,
    /// The instance has not queued it.
    pub(crate) is_refused: bool,
}
