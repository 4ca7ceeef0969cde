//! A command that is sent on while it comes.

use crate::resp::body_stream::BodyStream;

/// A command that is being sent on.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) rest: BodyStream,
    pub(crate) instance: usize,
    pub(crate) lane: usize,
    /// That lane's, not of another one at its place.
    pub(crate) serial: u64,
    /// The client's lanes when it began.
    pub(crate) set: u32,
    pub(crate) row: usize,
    pub(crate) key: Vec<u8>,
    /// Bytes sent on so far.
    pub(crate) length: usize,
}
