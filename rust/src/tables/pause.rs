//! The commands that CLIENT PAUSE holds back.

/// No command waits.
pub const NONE: u8 = 0;

/// Commands that write, or may be replicated, wait.
pub const WRITES: u8 = 1;

/// Every command waits.
pub const ALL: u8 = 2;
