//! The reply that a client is owed for one command.

use crate::client::attempt::Attempt;
use crate::client::transaction::Block;
use crate::routing::merge::Merging;

/// The reply to one command.
#[derive(Debug)]
pub enum Owed {
    /// Nothing has come yet; the command's row.
    Waiting(u32),
    /// The reply is in a lane's receive buffer, for this turn only.
    Ready {
        /// The lane's place.
        lane: u32,
        /// The offset of the reply.
        start: u32,
        /// The length of the reply.
        length: u32,
    },
    /// The reply is in the client's `parked` bytes, until its turn comes.
    Early {
        /// The offset of the reply.
        start: u32,
        /// The length of the reply.
        length: u32,
    },
    /// The reply itself. Boxed like the next ones, because a client owes thousands of entries.
    Held(Box<Vec<u8>>),
    /// A block from MULTI to EXEC in flight.
    Block(Box<Block>),
    /// An attempt of a blocking command in flight.
    Attempt(Box<Attempt>),
    /// A large reply whose beginning has already moved to `out`.
    Streaming,
    /// Parts of several instances; the command's row.
    Merging(Box<Merging>, u32),
    /// The reply to SCAN, whose cursor must be rewritten; the instance, and the command's row.
    Scanning(u16, u32),
}

impl Owed {
    /// True if one instance answers, and nothing of its reply has come.
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
