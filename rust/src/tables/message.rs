//! A message on its way to subscribers.

use crate::base::number::push_u64;
use crate::catalog::channels::{Kind, Name};
use crate::resp::request::push_bulk;
use std::sync::Arc;

/// A message on its way to the subscribers of one name.
#[derive(Debug, Clone)]
pub struct Message {
    /// The kind of the name.
    pub kind: Kind,
    /// The name of the subscription.
    pub name: Name,
    /// The message without its first byte, which is `>` in RESP3 and `*` in RESP2.
    pub frame: Arc<[u8]>,
}

impl Message {
    pub(crate) fn new(kind: Kind, name: &Name, words: &[&[u8]]) -> Self {
        let mut frame = Vec::with_capacity(64 + words.iter().map(|word| word.len()).sum::<usize>());
        push_u64(&mut frame, words.len() as u64);
        frame.extend_from_slice(b"\r\n");
        for word in words {
            push_bulk(&mut frame, word);
        }
        Self { kind, name: name.clone(), frame: frame.into() }
    }
}
