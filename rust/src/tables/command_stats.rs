//! What INFO counts for each command, and for each kind of error.

/// A command's counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// It ran.
    pub calls: u64,
    /// It was refused before it ran.
    pub rejected: u64,
    /// It ran and answered an error.
    pub failed: u64,
}

/// A worker's counts, with names.
#[derive(Debug, Default)]
pub struct Report {
    /// Commands that were counted at all.
    pub commands: Vec<(String, Count)>,
    /// Errors by kind.
    pub errors: Vec<(Vec<u8>, u64)>,
}
