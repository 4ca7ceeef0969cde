//! The data path of thREaDIS: all code that an ordinary command passes through.
//!
//! Each folder is a room, and imports only rooms below it (`tests/test_architecture.py`):
//!
//! ```text
//! python     the module threadis._core           load   a load generator that checks what it gets
//! fuzzed     what holds of every parser, for the fuzz targets and for tests
//! turn       the turn of a worker, a step a file: poll, read, dispatch, deliver, write
//! commands   what commands do beyond one lane: transactions, commits, blocking pops, scripts
//! core       a worker as data, and the few verbs on it: send, answer, wait, hand over
//! work       what a worker has begun and not ended, as data
//! threads    letters, doors, and tables that post under their own lock
//! client     one client as data          lane     connections to instances
//! tables     what all threads share      routing  key to instance, parts, merging
//! catalog    the command table           resp     bytes to commands and replies, and back
//! net        sockets and the poller      base     knows nothing of Redis
//! ```
//! A command comes in through `turn/read`, leaves through `turn/dispatch` and `core/send`, and its
//! reply comes back through `core/deliver` and `core/write`. `turn/fast_path` is the short way for
//! both directions, which nearly every command takes. `turn/run` lists the steps of a turn.

#[cfg(any(test, feature = "fuzz"))]
extern crate self as _core; // its name in files that are shared with tests

pub mod base;
pub mod catalog;
pub mod client;
pub mod commands;
pub mod core;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzzed;
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
