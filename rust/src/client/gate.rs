//! Why the next command of a client is not taken yet.

/// Why a client's commands are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They are taken.
    Open,
    /// The next command waits until all earlier ones are answered.
    Drain,
    /// The coordinator runs the last command.
    Coordinator,
    /// The instances are being subscribed for it: only commands about subscriptions are taken.
    Subscribing,
    /// CLIENT PAUSE holds the next command back.
    Pause,
    /// A key of the next command is locked.
    Lock,
    /// The lane for the next command is full.
    Lane,
    /// The client is moving to another worker.
    Move,
    /// Other workers must first read what was sent before the next command.
    Round,
    /// A large command is forwarded as it arrives.
    Upload,
    /// The client does not read its replies, or has too many commands in flight.
    Output,
}

impl Gate {
    /// True if commands of some kind are taken.
    #[inline]
    pub(crate) fn takes_some(self) -> bool {
        matches!(self, Self::Open | Self::Subscribing)
    }
}
