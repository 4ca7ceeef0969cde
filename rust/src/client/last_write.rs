//! The newest write of a client, for keeping the writes of a pipeline in order.

/// A client's newest write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastWrite {
    /// Its instance; `None`: several.
    pub(crate) instance: Option<usize>,
    /// The sequence number of its reply.
    pub(crate) sequence: u32,
}
