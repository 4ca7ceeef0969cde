//! Which instance has a key, how a command is split, how replies are merged: pure functions and
//! data.

pub(crate) mod acl_pattern;
pub(crate) mod colocation;
pub mod merge;
pub(crate) mod owner;
pub(crate) mod parts;
pub mod placement;
pub mod scan_cursor;
pub mod slots;
