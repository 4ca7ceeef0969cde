//! Connections to instances: buffers, pairing of replies, the pool, fences around scripts. A lane
//! knows no client, and nothing that threads share.

pub(crate) mod duties;
pub(crate) mod find;
pub(crate) mod in_flight;
pub mod instance;
#[expect(clippy::module_inception, reason = "the room is named after its noun")]
pub mod lane;
pub(crate) mod large;
pub(crate) mod lists;
pub mod pool;
pub mod received;
pub(crate) mod sandbox_user;
pub(crate) mod script_fences;
pub(crate) mod script_lanes;
pub(crate) mod sets;
