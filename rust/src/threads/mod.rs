//! What threads exchange: letters, doors, and the tables that post letters while they are locked.
//! Every `impl Shared` is in this room.

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
