//! What knows nothing of Redis: clock, numbers, patterns, random names. It imports no other room.

pub(crate) mod begun;
pub mod client_key;
pub(crate) mod clock;
pub(crate) mod count;
pub mod glob;
pub mod number;
pub mod own_names;
pub(crate) mod random;
pub(crate) mod step;
