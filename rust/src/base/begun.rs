//! A command in progress, for the logs.

/// A command in flight: its bytes as the client sent them, and its start time.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) raw: Vec<u8>,
    pub(crate) at: u64,
}
