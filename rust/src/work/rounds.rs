//! The rounds that a worker has asked for, and the clients that wait for them.

use std::collections::VecDeque;

/// A worker's state of rounds.
#[derive(Debug, Default)]
pub(crate) struct OwnRounds {
    /// Clients that ask for a round in this turn.
    pub(crate) asking: Vec<Publisher>,
    /// Rounds that were asked for, oldest first.
    pub(crate) waiting: VecDeque<Round>,
    /// The newest round for which it reads its clients, and the newest that it has ended.
    pub(crate) noticed: u64,
    pub(crate) ended: u64,
}

/// A client whose next command waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publisher {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// The bytes of its input that were read.
    pub(crate) read: u64,
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    /// The number of connections that had been handed to other workers when it began.
    pub(crate) handed: u64,
    pub(crate) publishers: Vec<Publisher>,
    /// It repeats a round during which connections were handed to other workers.
    pub(crate) is_second: bool,
}
