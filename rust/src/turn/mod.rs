//! The turn of a worker, a step a file: poll, read, dispatch, deliver, write.
//! Nothing but `python` imports it.

pub(crate) mod balance;
pub(crate) mod clients;
pub(crate) mod deliver;
pub(crate) mod dispatch;
pub(crate) mod fast_path;
pub(crate) mod hearing;
pub(crate) mod losses;
pub mod poll;
pub mod queued_commands;
pub(crate) mod read;
pub(crate) mod refusals;
pub mod run;
pub(crate) mod striping;
