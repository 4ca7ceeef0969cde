//! A confirmation of SUBSCRIBE that waits for what it is owed behind.

use std::collections::VecDeque;

/// What a client is still to be told, oldest first. All are owed; their bytes count as held.
pub type Confirmations = VecDeque<Confirmation>;

/// What a client is told of one command.
#[derive(Debug)]
pub struct Confirmation {
    /// Which of its replies this is.
    pub(crate) sequence: u32,
    pub(crate) bytes: Vec<u8>,
    /// Nothing but those before it keeps it back.
    pub(crate) is_due: bool,
}
