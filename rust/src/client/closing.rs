//! How a client's connection ends: at once, after what it is owed, or after its transaction.

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It does not.
    No,
    /// Once everything it is owed has been written.
    AfterReplies,
    /// We said goodbye; until this second input is thrown away, or a reset would eat our words.
    Lingering(u64),
    /// At the end of this turn.
    Now,
}
