//! What lanes have received in this turn.

/// Bytes that lanes have received, by place.
#[derive(Debug, Default)]
pub struct Received(pub(crate) Vec<Vec<u8>>);

impl Received {
    /// A reply that lies there this turn.
    #[must_use]
    pub fn get(&self, lane: u32, start: u32, length: u32) -> &[u8] {
        &self.0[lane as usize][start as usize..][..length as usize]
    }

    /// What follows `start`.
    #[must_use]
    pub fn after(&self, place: usize, start: usize) -> &[u8] {
        &self.0[place][start..]
    }
}
