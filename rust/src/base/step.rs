//! How far a command has come.

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is on its way, or answered.
    Done,
    /// It must wait; the client's gate says for what.
    Blocked,
}
