//! The newest write of a client, where writes of a pipeline are kept in order.

/// A client's newest write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastWrite {
    /// Where; `None`: on several.
    pub(crate) instance: Option<usize>,
    /// Its reply's sequence number.
    pub(crate) sequence: u32,
}
