//! A client that is to go to another worker.

/// A client that is to go, once nothing is owed to it.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) place: usize,
    pub(crate) generation: u32,
    pub(crate) to: usize,
}
