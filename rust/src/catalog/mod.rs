//! The command table: the commands, where their keys are, how they are routed. It decides nothing;
//! Python fills it.

pub mod channels;
pub mod index;
pub mod key_specs;
pub mod merge_kind;
pub(crate) mod select;
pub mod table;
pub mod traits;
