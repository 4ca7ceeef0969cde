//! A confirmation of SUBSCRIBE, and what it waits for.

use std::collections::VecDeque;

/// Confirmations still to be sent, oldest first. All are owed; their bytes count as held.
pub type Confirmations = VecDeque<Confirmation>;

/// The confirmation of one command.
#[derive(Debug)]
pub struct Confirmation {
    /// The sequence number of this reply.
    pub(crate) sequence: u32,
    pub(crate) bytes: Vec<u8>,
    /// It waits for earlier confirmations only.
    pub(crate) is_due: bool,
}
