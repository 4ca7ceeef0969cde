//! What a worker has begun and not ended, as data: commits, locked pops, attempts, rounds, locks
//! that hold here.

pub(crate) mod attempts;
pub mod audience;
pub mod commit;
pub(crate) mod commits;
pub(crate) mod leaving;
pub mod lock_view;
pub(crate) mod locked_pops;
pub mod rounds;
pub mod tally;
pub mod writers;
