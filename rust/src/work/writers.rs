//! A write that waits for subscriptions that came before it.

/// A client whose write waits.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// How much of what it has sent was read.
    pub(crate) read: u64,
    /// The newest pending one that it waits for.
    pub(crate) newest: u64,
    pub(crate) until: u64,
}
