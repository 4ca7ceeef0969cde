//! The commands that a client has queued.

/// The commands that EXEC runs.
#[derive(Debug, Default)]
pub struct Queued {
    /// The commands in canonical form, one after the other.
    pub commands: Vec<u8>,
    /// Their number.
    pub count: usize,
}
