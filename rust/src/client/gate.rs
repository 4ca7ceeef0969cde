//! Why the next command of a client is not taken yet.

/// Why a client's commands are not being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They are.
    Open,
    /// The next command must wait until all before it are answered.
    Drain,
    /// The coordinator has the last one.
    Coordinator,
    /// The instances are being subscribed for it: only commands about subscriptions are taken.
    Subscribing,
    /// CLIENT PAUSE holds the next one back.
    Pause,
    /// A key of the next command is locked.
    Lock,
    /// The next command's lane is full.
    Lane,
    /// It goes to another worker.
    Move,
    /// Other workers read first what was sent before the next command.
    Round,
    /// The rest of a big command goes on as it comes.
    Upload,
    /// The client does not read its replies, or has too many commands in flight.
    Output,
}

impl Gate {
    /// Whether commands of some kind are taken.
    #[inline]
    pub(crate) fn takes_some(self) -> bool {
        matches!(self, Self::Open | Self::Subscribing)
    }
}
