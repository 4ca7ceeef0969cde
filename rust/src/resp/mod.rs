//! Bytes to commands and replies, and back: pure, no socket.

pub(crate) mod body_stream;
pub(crate) mod encode;
pub(crate) mod error_text;
pub mod inline;
pub(crate) mod packed_keys;
pub mod reply;
pub mod request;
#[cfg(any(test, feature = "python"))]
pub(crate) mod script_lines;
