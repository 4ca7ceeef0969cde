//! The counters of INFO for each command, and for each kind of error.

/// The counters of a command.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// It ran.
    pub calls: u64,
    /// It was refused before it ran.
    pub rejected: u64,
    /// It ran and replied with an error.
    pub failed: u64,
}

/// The counters of a worker, with names.
#[derive(Debug, Default)]
pub struct Report {
    /// The commands with counts other than zero.
    pub commands: Vec<(String, Count)>,
    /// The number of errors by kind.
    pub errors: Vec<(Vec<u8>, u64)>,
}
