//! A worker, as data, and the few verbs on it: send, answer, wait, hand over to the coordinator.

pub(crate) mod answer;
pub mod audience;
pub mod confirmations;
pub mod coordinated;
pub mod counting;
pub(crate) mod deliver;
pub mod denials;
pub mod describe;
pub mod ending;
pub mod handover;
pub(crate) mod input;
pub(crate) mod large_replies;
pub mod lock_gate;
pub(crate) mod locks_of_work;
pub mod monitor;
pub(crate) mod order;
pub mod pause;
pub(crate) mod route;
pub(crate) mod send;
pub(crate) mod slow_log;
pub mod transaction;
pub mod waiting;
pub(crate) mod watch;
pub mod worker;
pub(crate) mod write;
pub(crate) mod write_order;
