//! A command that is forwarded while it is still arriving.

use crate::resp::body_stream::BodyStream;

/// A command that is being forwarded.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) rest: BodyStream,
    pub(crate) instance: usize,
    pub(crate) lane: usize,
    /// The lane's serial number, which another lane at the same place does not have.
    pub(crate) serial: u64,
    /// The client's set of lanes when it began.
    pub(crate) set: u32,
    pub(crate) row: usize,
    pub(crate) key: Vec<u8>,
    /// The bytes forwarded so far.
    pub(crate) length: usize,
}
