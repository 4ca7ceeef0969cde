//! What threads say to each other: letters, doors, and the tables that post under their own lock.
//! The only place with an `impl Shared`.

pub mod denials;
pub mod events;
pub mod invalidations;
pub mod kept;
pub mod letters;
pub mod locking;
pub mod mailbox;
pub mod rounds;
pub mod shared;
pub mod subscriptions;
pub mod tracking_table;
