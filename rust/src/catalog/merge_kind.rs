//! How the replies of several instances become the one reply of a client: what the command table says.

/// How the replies of several instances become the one reply of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Add integers.
    Sum,
    /// The smallest integer.
    Min,
    /// The largest integer.
    Max,
    /// Integers, or arrays of them, 1 where all say 1.
    And,
    /// Integers, or arrays of them, 1 where any says 1.
    Or,
    /// The first reply, unless some instance refused.
    AllSucceeded,
    /// The first reply that is no error, else the first error.
    OneSucceeded,
    /// One aggregate with the elements of all.
    Concat,
    /// Elements in the order of the client's keys.
    Keyed,
}
