//! How a client tracks keys.

use crate::base::client_key::ClientKey;

/// How a client tracks, as set by CLIENT TRACKING.
#[derive(Debug, Clone)]
pub struct Mode {
    /// It is notified of every change of a key with one of these prefixes. `None` in the default
    /// mode, where it is notified of keys that it has read.
    pub prefixes: Option<Vec<Vec<u8>>>,
    /// Only keys of the command after CLIENT CACHING YES count.
    pub opt_in: bool,
    /// All keys count, except those of the command after CLIENT CACHING NO.
    pub opt_out: bool,
    /// Another client is notified instead: its id and its place.
    pub redirect: Option<(u64, ClientKey)>,
    /// It is not notified of its own changes.
    pub no_loop: bool,
    /// The client that it redirects to is gone.
    pub is_broken: bool,
    /// CLIENT CACHING was the last command.
    pub caching: bool,
}

impl Mode {
    pub(crate) fn remembers(&self) -> bool {
        self.prefixes.is_none() && (!self.opt_in || self.caching) && !(self.opt_out && self.caching)
    }
}
