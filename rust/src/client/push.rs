//! Pushes that must follow replies still to come.

use crate::catalog::channels::{Kind, Name};
use std::collections::VecDeque;

/// Pushes that wait for replies, oldest first.
pub type Pushes = VecDeque<Push>;

/// One push.
#[derive(Debug)]
pub struct Push {
    /// It follows the reply with this sequence number.
    pub(crate) after: u32,
    pub(crate) bytes: Vec<u8>,
    /// The subscription that the push is for, while that is not confirmed.
    pub(crate) of: Option<(Kind, Name)>,
}
