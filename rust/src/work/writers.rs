//! A write that waits for subscriptions that came before it.

/// A client whose write waits.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// The bytes of its input that were read.
    pub(crate) read: u64,
    /// The newest pending subscription that it waits for.
    pub(crate) newest: u64,
    pub(crate) until: u64,
}
