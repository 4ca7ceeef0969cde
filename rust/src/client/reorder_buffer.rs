//! Replies that came before their turn, one behind the other: memory that is free again when all of
//! them have moved on.

/// Bytes kept; what does not fit gets memory of its own.
const LIMIT: usize = 64 * 1024;

/// An idle client keeps no more.
const KEEP: usize = 4 * 1024;

/// One client's.
#[derive(Debug, Default)]
pub(crate) struct ReorderBuffer {
    bytes: Vec<u8>,
    /// Replies that have not moved on.
    count: usize,
}

impl ReorderBuffer {
    /// Copies a reply: where it begins and its length; `None` if it does not fit.
    pub(crate) fn keep(&mut self, reply: &[u8]) -> Option<(u32, u32)> {
        if self.bytes.len() + reply.len() >= LIMIT {
            return None;
        }
        let place = (u32::try_from(self.bytes.len()).ok()?, u32::try_from(reply.len()).ok()?);
        self.bytes.extend_from_slice(reply);
        self.count += 1;
        Some(place)
    }

    /// A reply that is kept.
    pub(crate) fn get(&self, start: u32, length: u32) -> &[u8] {
        &self.bytes[start as usize..][..length as usize]
    }

    /// One of them has moved on.
    pub(crate) fn moved_on(&mut self) {
        self.count -= 1;
    }

    /// Lets go of those that have moved on, if all have.
    pub(crate) fn tidy(&mut self) {
        if self.count == 0 {
            self.bytes.clear();
        }
    }

    /// Gives memory back that only a busy client needs.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// How many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}
