//! What CLIENT PAUSE holds back.

/// Nothing waits.
pub const NONE: u8 = 0;

/// What writes, or may be replicated, waits.
pub const WRITES: u8 = 1;

/// Every command waits.
pub const ALL: u8 = 2;
