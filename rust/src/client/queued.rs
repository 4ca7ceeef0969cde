//! What a client has queued.

/// What EXEC is to run.
#[derive(Debug, Default)]
pub struct Queued {
    /// Commands in canonical form, one behind the other.
    pub commands: Vec<u8>,
    /// How many these are.
    pub count: usize,
}
