//! Which client.

/// Names a client for as long as it lives; places are reused, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey {
    /// Its worker.
    pub worker: usize,
    /// Its place there.
    pub place: usize,
    /// Which client had that place.
    pub generation: u32,
}
