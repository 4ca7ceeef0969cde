//! The bytes that lanes have received in this turn.

/// Received bytes, by the lane's place.
#[derive(Debug, Default)]
pub struct Received(pub(crate) Vec<Vec<u8>>);

impl Received {
    /// A reply that is there in this turn.
    #[must_use]
    pub fn get(&self, lane: u32, start: u32, length: u32) -> &[u8] {
        &self.0[lane as usize][start as usize..][..length as usize]
    }

    /// The bytes after `start`.
    #[must_use]
    pub fn after(&self, place: usize, start: usize) -> &[u8] {
        &self.0[place][start..]
    }
}
