//! What a worker has begun and not ended, as data: commits, searches, attempts, rounds, locks that hold here.

pub mod audience;
pub mod commit;
pub(crate) mod commits;
pub(crate) mod leaving;
pub mod lock_view;
pub mod rounds;
pub(crate) mod search;
pub mod tally;
pub(crate) mod tries;
pub mod writers;
