//! What all threads share, each table under its own lock. A table knows no thread, and notifies
//! none.

pub mod blocking_keys;
pub mod command_stats;
pub mod commit_records;
pub mod counters;
pub mod event_feeds;
pub mod invalidation_feeds;
pub mod kept_messages;
pub mod known_scripts;
pub mod lock;
pub mod lock_table;
pub mod message;
pub mod output_limits;
pub mod pause;
pub mod pending_subscriptions;
pub(crate) mod read_keys;
pub mod settings;
pub mod slow_log;
pub(crate) mod told;
pub mod users;
