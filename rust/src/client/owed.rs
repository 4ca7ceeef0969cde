//! The reply that a client is owed to one command.

use crate::client::attempt::Attempt;
use crate::client::transaction::Block;
use crate::routing::merge::Merging;

/// The reply to one command.
#[derive(Debug)]
pub enum Owed {
    /// Nothing has come yet; the command's row.
    Waiting(u32),
    /// In a lane's receive buffer, for this turn only.
    Ready {
        /// The lane's place.
        lane: u32,
        /// Where the reply begins.
        start: u32,
        /// Its length.
        length: u32,
    },
    /// In the client's `parked` bytes, until its turn comes.
    Early {
        /// Where the reply begins.
        start: u32,
        /// Its length.
        length: u32,
    },
    /// Here. Boxed, like the next: a client owes thousands of these entries.
    Held(Box<Vec<u8>>),
    /// A block from MULTI to EXEC, on its way.
    Block(Box<Block>),
    /// A command that may have to wait for its keys, on its way.
    Attempt(Box<Attempt>),
    /// A large reply of which the beginning has moved to `out` already.
    Streaming,
    /// Parts of several instances; the command's row.
    Merging(Box<Merging>, u32),
    /// SCAN's, whose cursor must be rewritten; the instance it went to, and the command's row.
    Scanning(u16, u32),
}

impl Owed {
    /// True if one instance answers, and nothing of that has come.
    #[must_use]
    pub fn comes_whole(&self) -> bool {
        matches!(self, Self::Block(_) | Self::Waiting(_) | Self::Attempt(_) | Self::Scanning(..))
    }

    /// The row of a command that waits for an instance.
    #[must_use]
    pub fn row(&self) -> u32 {
        match self {
            Self::Waiting(row) | Self::Merging(_, row) | Self::Scanning(_, row) => *row,
            Self::Block(block) => block.exec,
            Self::Attempt(attempt) => attempt.row,
            _ => u32::MAX,
        }
    }
}
