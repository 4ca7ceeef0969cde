//! Values that describe themselves, so that a reply can be checked without a memory of what was
//! sent.
//!
//! ```text
//!   0        4          8            12          16                    value_size
//!   | key    | client   | sequence   | CRC-32 of | padding: a window of one fixed pattern,
//!   | u32 le | u32 le   | u32 le     | the 12    | begins at an offset set by the checksum
//! ```
//!
//! The format is binary on purpose: values contain `\r`, `\n` and zero bytes, which exposes a
//! program that splits at line ends. The padding depends on the header, so the tail of another
//! value is detected.

use std::fmt;

/// The bytes of the header; no value is shorter.
pub const HEADER: usize = 16;

/// The client number that [`preload`](super::preload) uses.
pub const PRELOADER: u32 = u32::MAX;

/// The number of paddings: one for each value of the checksum's low byte.
const WINDOWS: usize = 256;

/// The writer of a value, its key, and the number of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The index of the key.
    pub key: u32,
    /// The connection that wrote it, counted over all threads; [`PRELOADER`] for preloaded values.
    pub client: u32,
    /// The number of writes of that client up to this one; it begins at 1.
    pub sequence: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, client, sequence } = self;
        match *client {
            PRELOADER => write!(f, "key {key} as preloaded"),
            _ => write!(f, "key {key} by client {client} as its write {sequence}"),
        }
    }
}

/// Writes and checks values of one size.
#[derive(Debug)]
pub struct Values {
    size: usize,
    pattern: Vec<u8>,
}

impl Values {
    /// Values of `size` bytes, at least [`HEADER`].
    #[must_use]
    pub fn new(size: usize) -> Self {
        // Fibonacci hashing: the top byte of a product.
        let mixed = |i: usize| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0];
        Self { size, pattern: (0..size - HEADER + WINDOWS).map(mixed).collect() }
    }

    /// Appends the value for `stamp`.
    pub fn append(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let mut header = [0; HEADER];
        header[0..4].copy_from_slice(&stamp.key.to_le_bytes());
        header[4..8].copy_from_slice(&stamp.client.to_le_bytes());
        header[8..12].copy_from_slice(&stamp.sequence.to_le_bytes());
        let checksum = crc32fast::hash(&header[..12]);
        header[12..].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.padding(checksum));
    }

    /// Reads a value back; `None` unless every byte is as this generator would have written it.
    #[must_use]
    pub fn read(&self, value: &[u8]) -> Option<Stamp> {
        if value.len() != self.size {
            return None;
        }
        let (fields, padding) = value.split_first_chunk::<HEADER>()?;
        let field = |at| fields[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let checksum = field(12)?;
        let genuine =
            checksum == crc32fast::hash(&fields[..12]) && padding == self.padding(checksum);
        genuine.then_some(Stamp { key: field(0)?, client: field(4)?, sequence: field(8)? })
    }

    fn padding(&self, checksum: u32) -> &[u8] {
        let start = checksum as usize % WINDOWS;
        &self.pattern[start..start + self.size - HEADER]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { key: 7, client: 3, sequence: 1_000_000 };

    #[test]
    fn a_value_reads_back_at_every_size() {
        for size in [HEADER, HEADER + 1, 100, 70_000] {
            let values = Values::new(size);
            let mut bytes = Vec::new();
            values.append(STAMP, &mut bytes);
            assert_eq!(bytes.len(), size);
            assert_eq!(values.read(&bytes), Some(STAMP));
        }
    }

    #[test]
    fn a_change_of_any_byte_is_found() {
        let values = Values::new(64);
        let mut bytes = Vec::new();
        values.append(STAMP, &mut bytes);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x20;
            assert_eq!(values.read(&bytes), None, "byte {at}");
            bytes[at] ^= 0x20;
        }
        assert_eq!(values.read(&bytes[..63]), None);
    }

    #[test]
    fn the_tail_of_another_value_is_found() {
        let values = Values::new(64);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        values.append(STAMP, &mut one);
        values.append(Stamp { key: 8, ..STAMP }, &mut other);
        one.truncate(32);
        one.extend_from_slice(&other[32..]);
        assert_eq!(values.read(&one), None);
    }
}
