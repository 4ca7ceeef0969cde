//! The data path of thREaDIS: what a byte of an ordinary command passes through.
//!
//! In reading order, which is the order in which a command meets them:
//!
//! ```text
//! client ─► net ─► request ─► command ─► keys ─► slot ─► lane ─► instance
//!                  (cut)      (look up)  (find)  (route) (append)    │
//! client ◄─ net ◄─ client ◄──────── merge, scan ◄──────── reply ◄────┘
//!                  (settle)         (put together)        (cut)
//! ```
//! `worker` owns all of it and runs the turn; `ordinary` is the short way, there and back, that nearly
//! every command takes; `forward`, `refusals`, `route`, `split`, `trying` and `reach` are the way out, `deliver`
//! the way back; `joining` and `commits` do what must be done on several instances or not at all,
//! `looks` what is to be looked for on several; `pubsub`, `subscriptions` and `push` deliver messages,
//! `session` answers what needs no instance, `clients` lets clients come and go, `balance` and `spread`
//! let them move. `shared` is what threads share. `load` is the other side: a generator that checks what
//! it gets. Python is only in `python` and `load::python`.

mod balance;
mod begun;
mod big;
pub mod channels;
pub mod client;
pub mod client_info;
pub mod client_key;
mod clients;
mod clock;
pub mod closing;
pub mod command;
pub mod commit;
mod commit_ends;
mod commits;
pub mod confirmations;
mod count;
mod deliver;
pub mod denials;
pub mod ears;
mod encode;
pub mod ending;
mod error_text;
mod events;
pub mod executing;
mod fences;
pub mod finished;
mod following;
mod forward;
pub mod glob;
mod group;
mod guard;
mod hearing;
pub mod inline;
pub mod input;
pub mod instance;
mod joining;
mod keeping;
pub mod kept;
pub mod keys;
pub mod lane;
mod lane_lists;
mod lane_sets;
pub mod lanes;
pub mod load;
pub mod lock;
pub mod lock_table;
pub mod locks;
mod logged;
mod look;
mod looks;
pub mod mailbox;
pub mod merge;
pub mod merge_kind;
pub mod monitor;
pub mod multi;
pub mod names;
pub mod net;
mod nonce;
pub mod number;
mod ordered;
mod ordinary;
pub mod ours;
pub mod output_limits;
mod owner;
mod packed_keys;
mod parked;
pub mod pause;
pub mod pending_subscriptions;
pub mod placement;
pub mod pubsub;
mod push;
#[cfg(feature = "python")]
mod python;
pub mod queued;
pub mod quiet;
mod reach;
mod read_keys;
mod refusals;
pub mod reply;
pub mod request;
mod rest;
pub mod rounds;
mod route;
pub mod scan;
mod script_lanes;
#[cfg(any(test, feature = "python"))]
mod script_lines;
pub mod scripts;
mod select;
pub mod session;
pub mod settings;
pub mod shared;
pub mod slot;
pub mod slow_log;
mod spin;
mod split;
mod spread;
pub mod stats;
mod step;
pub mod subscriptions;
mod taken;
pub mod tally;
mod told;
pub mod tracking;
pub mod tracking_table;
pub mod trying;
mod upload;
pub mod upstreams;
pub mod users;
pub mod waited;
mod work_lanes;
pub mod worker;
