//! The identity of a client.

/// Identifies a client while it is connected; places are reused, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey {
    /// Its worker.
    pub worker: usize,
    /// Its place there.
    pub place: usize,
    /// Its generation at that place.
    pub generation: u32,
}
