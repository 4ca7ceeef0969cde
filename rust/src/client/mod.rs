//! One client: its state as data. It knows no worker and no lane pool. Every `impl Client` is in
//! this room.

pub mod attempt;
#[expect(clippy::module_inception, reason = "the room is named after its noun")]
pub mod client;
pub mod closing;
pub mod confirmation;
pub mod executing;
pub mod flow;
pub mod gate;
pub mod input;
pub(crate) mod last_write;
pub mod owed;
pub(crate) mod push;
pub(crate) mod pushes;
pub mod queued;
pub(crate) mod reorder_buffer;
pub mod reply_mode;
pub mod session;
pub mod subscriptions;
pub mod tracking_mode;
pub mod transaction;
pub(crate) mod upload;
pub(crate) mod weight;
