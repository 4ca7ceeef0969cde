//! How a client tracks keys.

use crate::base::client_key::ClientKey;

/// How a client tracks, as CLIENT TRACKING said.
#[derive(Debug, Clone)]
pub struct Mode {
    /// Every change of a key with one of these prefixes; none in the default mode, where it is
    /// told of keys it has read.
    pub prefixes: Option<Vec<Vec<u8>>>,
    /// Only what follows CLIENT CACHING YES.
    pub opt_in: bool,
    /// All but what follows CLIENT CACHING NO.
    pub opt_out: bool,
    /// Another client is told instead: its id, and who that is.
    pub redirect: Option<(u64, ClientKey)>,
    /// It is not told of what it changes itself.
    pub no_loop: bool,
    /// That one is gone.
    pub is_broken: bool,
    /// CLIENT CACHING was the last command.
    pub caching: bool,
}

impl Mode {
    pub(crate) fn remembers(&self) -> bool {
        self.prefixes.is_none() && (!self.opt_in || self.caching) && !(self.opt_out && self.caching)
    }
}
