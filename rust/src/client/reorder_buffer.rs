//! Replies that came before their turn, one after the other. Their memory is free again once all of
//! them have moved on.

/// The most bytes kept; a reply that does not fit gets memory of its own.
const LIMIT: usize = 64 * 1024;

/// The most memory that an idle client keeps, in bytes.
const KEEP: usize = 4 * 1024;

/// The early replies of one client.
#[derive(Debug, Default)]
pub(crate) struct ReorderBuffer {
    bytes: Vec<u8>,
    /// The number of replies that have not moved on.
    count: usize,
}

impl ReorderBuffer {
    /// Copies a reply. Returns its offset and length; `None` if it does not fit.
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

    /// One reply has moved on.
    pub(crate) fn moved_on(&mut self) {
        self.count -= 1;
    }

    /// Clears the buffer if all replies have moved on.
    pub(crate) fn tidy(&mut self) {
        if self.count == 0 {
            self.bytes.clear();
        }
    }

    /// Frees memory that only a busy client needs.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// The number of bytes kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}
