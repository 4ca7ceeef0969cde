//! A client that is to move to another worker.

/// A client that moves once no reply is owed to it.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    pub(crate) to: usize,
}
