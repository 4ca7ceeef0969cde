//! What may only be pushed behind replies that are still to come.

use crate::catalog::channels::{Kind, Name};
use std::collections::VecDeque;

/// Pushes that wait for replies, oldest first.
pub type Pushes = VecDeque<Push>;

/// One of them.
#[derive(Debug)]
pub struct Push {
    /// It follows the reply with this sequence number.
    pub(crate) after: u32,
    pub(crate) bytes: Vec<u8>,
    /// The subscription that it is for, if that is not certain yet.
    pub(crate) of: Option<(Kind, Name)>,
}
