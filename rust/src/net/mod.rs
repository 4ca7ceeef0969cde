//! System calls on sockets, and the poller. It knows no protocol.

pub(crate) mod poller;
pub mod socket;
pub(crate) mod spin;
