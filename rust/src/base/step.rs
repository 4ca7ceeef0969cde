//! The progress of a command.

/// The progress of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is in flight, or answered.
    Done,
    /// It must wait; the client's gate tells for what.
    Blocked,
}
