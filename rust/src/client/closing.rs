//! How a client's connection ends: at once, after the replies owed, or after its transaction.

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It stays open.
    No,
    /// After all replies owed have been written.
    AfterReplies,
    /// The last reply is written. Until this second, input is read and dropped, because unread
    /// input would cause a reset, which could discard the reply before the client reads it.
    Lingering(u64),
    /// At the end of this turn.
    Now,
}
