//! The command table: which commands there are, where their keys stand, how they travel.
//! It decides nothing; Python fills it.

pub mod channels;
pub mod index;
pub mod key_specs;
pub mod merge_kind;
pub(crate) mod select;
pub mod table;
