//! What a client has queued since MULTI, and the block that EXEC makes of it.

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Multi {
    /// In canonical form, one behind the other; where each ends.
    pub(crate) commands: Vec<u8>,
    pub(crate) ends: Vec<usize>,
    /// Their rows, and how many words all of them have.
    pub(crate) rows: Vec<u32>,
    pub(crate) words: usize,
    /// The instance of each, or none of one that is done in parts; fewer, if some have no keys.
    pub(crate) homes: Vec<Option<u16>>,
    /// The instance of every key so far.
    pub(crate) instance: Option<usize>,
    /// Keys of several instances.
    pub(crate) is_on_several: bool,
    /// A command that no instance can do alone.
    pub(crate) needs_coordinator: bool,
    /// A command was refused: EXEC will refuse the whole, and nothing more is kept.
    pub(crate) is_spoilt: bool,
    /// The database to which a SELECT leads.
    pub(crate) db: Option<u32>,
    /// Database, key, whether it is written: what EXEC must not run into a lock with.
    pub(crate) keys: Vec<(u32, Vec<u8>, bool)>,
    /// A command waits while CLIENT PAUSE holds writes back, and so will EXEC.
    pub(crate) may_replicate: bool,
}

/// A transaction on its way to one instance.
#[derive(Debug)]
pub struct Block {
    /// Replies that come before the one of EXEC: MULTI's, and one of each command.
    pub before: usize,
    /// Rows of the commands.
    pub rows: Vec<u32>,
    /// The row of EXEC.
    pub exec: u32,
    /// What the instance said to the first command that it did not queue.
    pub refusal: Vec<u8>,
}

impl Block {
    /// The reply of EXEC after a refusal: the client was told that all were queued.
    pub(crate) fn aborted(&self) -> Vec<u8> {
        let why = self.refusal.strip_prefix(b"-").unwrap_or(&self.refusal);
        [b"-EXECABORT Transaction discarded because of: ", why].concat()
    }
}

impl Multi {
    /// Bytes kept.
    #[must_use]
    pub fn size(&self) -> usize {
        self.commands.len()
    }
}
