//! A worker's state of an instance: its address, or why its keys are not available.

/// The state that the supervisor has last reported of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// It listens on this Unix socket.
    Ready(String),
    /// It reads its data from disk.
    Loading,
    /// It cannot be reached: `starting`, `stopped`, `restarting`, `failed`.
    Down(String),
}

impl InstanceState {
    /// The error for a command that was not sent because of this state. Client libraries know the
    /// codes `LOADING` and `TRYAGAIN` as temporary.
    #[must_use]
    pub fn refusal(&self, index: usize) -> String {
        match self {
            Self::Ready(_) => {
                format!("TRYAGAIN instance {index} cannot be reached; the command was not run")
            }
            Self::Loading => format!(
                "LOADING instance {index} is loading its data into memory; the command was not run"
            ),
            Self::Down(why) => {
                format!("TRYAGAIN instance {index} is {why}; the command was not run")
            }
        }
    }
}

/// The error for a write over several instances that was decided but has not run here.
#[must_use]
pub fn incomplete(index: usize) -> String {
    format!(
        "ERR instance {index} was lost during a write to several instances; \
         it will be completed when it is back"
    )
}

/// The error for a command with a key in doubt: it is unknown whether a write over several
/// instances has changed the key.
#[must_use]
pub fn in_doubt(index: usize) -> String {
    format!(
        "TRYAGAIN a write over several instances to this key is in doubt until instance {index} is \
         back; the command was not run"
    )
}

/// The error for a command whose lane was lost before its reply.
#[must_use]
pub fn lost(index: usize, was_sent: bool) -> String {
    if was_sent {
        format!(
            "ERR instance {index} was lost before it answered; the command may or may not have run"
        )
    } else {
        format!("TRYAGAIN instance {index} was lost; the command was not run")
    }
}
