//! Commands that do not simply go over one lane: transactions, commits, blocking pops, scripts,
//! messages, sessions.

pub mod attempt;
pub mod auth;
pub(crate) mod commit;
pub(crate) mod commit_ends;
pub(crate) mod commit_join;
pub(crate) mod commit_replies;
pub mod executing;
pub(crate) mod fanout;
pub(crate) mod locked_pop;
pub mod pending_subscriptions;
pub mod pubsub;
pub mod rounds;
pub mod scripts;
pub mod session;
pub mod tracking;
pub mod transaction;
pub(crate) mod upload;
