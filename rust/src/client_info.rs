//! What CLIENT LIST shows of a client; Python writes it in the server's words.

/// One client as CLIENT LIST shows it.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "python", pyo3::pyclass(frozen, get_all))]
#[allow(missing_docs, reason = "each is the field of that name in CLIENT LIST")]
pub struct ClientInfo {
    pub id: u64,
    pub address: String,
    pub local_address: String,
    pub fd: i32,
    pub name: Vec<u8>,
    pub user: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_version: Vec<u8>,
    pub age: u64,
    pub idle: u64,
    pub is_unix: bool,
    pub is_closing: bool,
    pub no_evict: bool,
    pub no_touch: bool,
    pub is_blocked: bool,
    pub can_redirect: bool,
    pub db: u32,
    pub resp: u8,
    pub query_bytes: usize,
    pub output_bytes: usize,
    pub output_replies: usize,
    pub wants_write: bool,
    pub command: String,
    pub total_input: u64,
    pub total_output: u64,
    pub total_commands: u64,
    pub sub: usize,
    pub psub: usize,
    pub ssub: usize,
    pub is_monitor: bool,
}
