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

pub mod base;
pub mod catalog;
pub mod client;
pub mod commands;
pub mod core;
pub mod lane;
pub mod load;
pub mod net;
#[cfg(feature = "python")]
mod python;
pub mod resp;
pub mod routing;
pub mod tables;
pub mod threads;
pub mod turn;
pub mod work;
