//! A command that has begun, for the logs.

/// A command on its way, as its client has sent it, and since when.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) raw: Vec<u8>,
    pub(crate) at: u64,
}
