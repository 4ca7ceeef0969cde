//! The commands that a client has queued since MULTI, and the block that EXEC makes of them.

/// The commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Multi {
    /// In canonical form, one after the other; and the end of each.
    pub(crate) commands: Vec<u8>,
    pub(crate) ends: Vec<usize>,
    /// Their rows, and the total number of their arguments.
    pub(crate) rows: Vec<u32>,
    pub(crate) words: usize,
    /// The instance of each command; `None` for one that is done in parts. Shorter if some have no
    /// keys.
    pub(crate) homes: Vec<Option<u16>>,
    /// The instance of all keys so far.
    pub(crate) instance: Option<usize>,
    /// The keys are on several instances.
    pub(crate) is_on_several: bool,
    /// A command that no single instance can run.
    pub(crate) needs_coordinator: bool,
    /// A command was refused. EXEC will refuse the whole, and no more commands are kept.
    pub(crate) is_spoilt: bool,
    /// The database that a queued SELECT changes to.
    pub(crate) db: Option<u32>,
    /// Database, key, and whether it is written: EXEC must wait for locks on these.
    pub(crate) keys: Vec<(u32, Vec<u8>, bool)>,
    /// A queued command must wait while CLIENT PAUSE holds writes back; so must EXEC.
    pub(crate) may_replicate: bool,
}

/// A transaction in flight to one instance.
#[derive(Debug)]
pub struct Block {
    /// The number of replies before that of EXEC: one of MULTI, and one of each command.
    pub before: usize,
    /// The rows of the commands.
    pub rows: Vec<u32>,
    /// The row of EXEC.
    pub exec: u32,
    /// The instance's reply to the first command that it did not queue.
    pub refusal: Vec<u8>,
}

impl Block {
    /// The reply to EXEC after a refusal; the client had got QUEUED for every command.
    pub(crate) fn aborted(&self) -> Vec<u8> {
        let why = self.refusal.strip_prefix(b"-").unwrap_or(&self.refusal);
        [b"-EXECABORT Transaction discarded because of: ", why].concat()
    }
}

impl Multi {
    /// The bytes kept.
    #[must_use]
    pub fn size(&self) -> usize {
        self.commands.len()
    }
}
