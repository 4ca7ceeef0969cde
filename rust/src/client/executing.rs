//! A transaction that a worker runs command by command.

use std::collections::VecDeque;

/// The arguments of each command of a transaction.
pub type Commands = Vec<Vec<Vec<u8>>>;

/// The replies of the commands of a transaction that have already run. Shorter than the transaction
/// if no later command has run.
pub type Known = Vec<Option<Vec<u8>>>;

/// A transaction that the worker runs command by command.
#[derive(Debug)]
pub struct Executing {
    /// The number of commands still to take.
    pub left: usize,
    /// After these commands the coordinator has something to do, before further commands come.
    pub(crate) has_more: bool,
    /// The place of the next command in the transaction.
    pub(crate) next: usize,
    /// The lock that it runs under.
    pub token: u64,
    /// The replies of those commands that have already run.
    pub(crate) known: VecDeque<Option<Vec<u8>>>,
    /// The microseconds that each of these took.
    pub(crate) took: u64,
    /// The bytes of EXEC's reply so far: what servers count as the reply of each command in it.
    pub(crate) replied: usize,
}
