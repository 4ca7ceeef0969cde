//! Input of a client that was not taken yet.
//!
//! ```text
//! bytes   [ taken | kept …………… ]   a command is taken by moving `start`: nothing is copied for it
//! ```
//! So each byte is copied once or twice, even in a pipeline of hundreds of megabytes, in whatever
//! portions commands are taken.

use crate::net::socket;
use crate::net::socket::Io;
use rustix::fd::AsFd;

/// With fewer taken bytes at the front than this, it is not worth copying the rest.
const TIDY_AT_LEAST: usize = 64 * 1024;

/// The input of one client: part of a command, or commands behind a gate.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// An input with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), start: 0 }
    }

    /// The number of bytes kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// True if no bytes are kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// The bytes kept.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Removes the first `count` bytes.
    pub(crate) fn take(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            *self = Self::default();
        } else if self.start >= TIDY_AT_LEAST && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Reads a socket once.
    pub(crate) fn read(&mut self, fd: impl AsFd, chunk: usize) -> Io {
        socket::read(fd, &mut self.bytes, chunk)
    }

    /// Puts bytes before those that are kept, mostly where taken bytes were.
    pub(crate) fn put_before(&mut self, mut bytes: Vec<u8>) {
        if let Some(start) = self.start.checked_sub(bytes.len()) {
            self.bytes[start..self.start].copy_from_slice(&bytes);
            self.start = start;
        } else {
            bytes.extend_from_slice(self.kept());
            *self = Self { bytes, start: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_and_the_rest_stays() {
        let content: Vec<u8> = (0..=255).cycle().take(1024 * 1024).collect();
        let mut input = Input::of(&content);
        let mut at = 0;
        for step in (1..).map(|step| step * 37) {
            assert_eq!(input.kept(), &content[at..]);
            if at + step > content.len() {
                break;
            }
            input.take(step);
            at += step;
        }
        input.take(input.len());
        assert!(input.is_empty());
        assert_eq!(input.bytes.capacity(), 0);
    }

    #[test]
    fn memory_comes_back_while_it_is_taken() {
        let mut input = Input::of(&vec![7; 8 * 1024 * 1024]);
        input.take(8 * 1024 * 1024 - 1000);
        assert_eq!(input.kept(), [7; 1000]);
        assert!(input.bytes.capacity() <= 2000);
    }

    #[test]
    fn what_is_put_before_comes_first() {
        for before in ["", "x", "xy", "xyz", "vwxyz"] {
            let mut input = Input::of(b"abcdef");
            input.take(3);
            input.put_before(before.as_bytes().to_vec());
            assert_eq!(input.kept(), [before.as_bytes(), b"def"].concat());
        }
    }
}
