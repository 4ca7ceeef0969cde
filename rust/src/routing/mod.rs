//! Which instance a key lives on, how a command is cut into parts, how replies are put together: pure.

pub(crate) mod acl_pattern;
pub(crate) mod colocation;
pub mod merge;
pub(crate) mod owner;
pub(crate) mod parts;
pub mod placement;
pub mod scan_cursor;
pub mod slots;
