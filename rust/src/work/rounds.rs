//! Rounds that a worker has asked for, and the clients that wait for them.

use std::collections::VecDeque;

/// What a worker knows of rounds.
#[derive(Debug, Default)]
pub(crate) struct OwnRounds {
    /// Clients that ask for one this turn.
    pub(crate) asking: Vec<Publisher>,
    /// Those that were asked for, oldest first.
    pub(crate) waiting: VecDeque<Round>,
    /// The newest one that it reads its clients for, and that it has ended.
    pub(crate) noticed: u64,
    pub(crate) ended: u64,
}

/// A client whose next command waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publisher {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// How much of what it has sent was read.
    pub(crate) read: u64,
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    /// How many connections had been handed on when it began.
    pub(crate) handed: u64,
    pub(crate) publishers: Vec<Publisher>,
    /// It repeats another, during which connections were handed on.
    pub(crate) is_second: bool,
}
