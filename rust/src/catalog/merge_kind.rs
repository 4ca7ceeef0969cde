//! The ways to merge the replies of several instances, as the command table names them.

/// How the replies of several instances are merged into the client's one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The sum of integers.
    Sum,
    /// The smallest integer.
    Min,
    /// The largest integer.
    Max,
    /// Integers, or arrays of them: 1 where all are 1.
    And,
    /// Integers, or arrays of them: 1 where any is 1.
    Or,
    /// The first reply, unless an instance replied with an error.
    AllSucceeded,
    /// The first reply that is no error; if all are, the first error.
    OneSucceeded,
    /// One aggregate with the elements of all replies.
    Concat,
    /// The elements in the order of the client's keys.
    Keyed,
}
