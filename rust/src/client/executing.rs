//! A transaction that a worker runs command by command.

use std::collections::VecDeque;

/// The words of each command of a transaction.
pub type Commands = Vec<Vec<Vec<u8>>>;

/// The reply of each command of a transaction, if it has run already; fewer, if no more have.
pub type Known = Vec<Option<Vec<u8>>>;

/// A transaction that the worker runs command by command.
#[derive(Debug)]
pub struct Executing {
    /// Commands still to be taken.
    pub left: usize,
    /// The coordinator is to do something once these are answered, before others come.
    pub(crate) has_more: bool,
    /// The place of the next in the transaction.
    pub(crate) next: usize,
    /// The lock it runs under.
    pub token: u64,
    /// The replies to those of them that have run.
    pub(crate) known: VecDeque<Option<Vec<u8>>>,
    /// Microseconds that each of these took.
    pub(crate) took: u64,
    /// Bytes of EXEC's reply, up to here: so servers measure the replies in it.
    pub(crate) replied: usize,
}
