//! The scripts that workers may run.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// A script that touches only its keys.
#[derive(Debug)]
struct Known {
    is_local: bool,
    /// It has run since this was last read.
    was_used: AtomicBool,
}

/// What is known of scripts.
#[derive(Debug, Default)]
pub struct Scripts {
    /// By SHA1 and by text: whether the script also touches keys that begin with one of its keys.
    known: RwLock<HashMap<Arc<[u8]>, Known>>,
    /// Milliseconds after which a script has run too long; 0 while that is unknown.
    pub limit: AtomicU64,
    /// The rights of sandbox users (guards), besides their keys.
    pub(crate) rules: OnceLock<Vec<Vec<u8>>>,
}

impl Scripts {
    /// Sets, once, the rights of sandbox users besides their keys.
    pub fn set_rules(&self, rules: Vec<Vec<u8>>) {
        self.rules.get_or_init(|| rules);
    }

    /// A script touches only its keys, or (`is_local`) keys that begin with one of them.
    pub fn learn(&self, script: &[u8], is_local: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(script.into(), Known { is_local, was_used: AtomicBool::new(true) });
    }

    /// It touches others.
    pub fn forget(&self, script: &[u8]) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(script);
    }

    /// All scripts were removed.
    pub fn forget_all(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// True if it has run since the last call.
    pub fn was_used(&self, script: &[u8]) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(script).is_some_and(|one| one.was_used.swap(false, Relaxed))
    }

    pub(crate) fn find(&self, script: &[u8]) -> Option<(Arc<[u8]>, bool)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (script, found) = known.get_key_value(script)?;
        found.was_used.store(true, Relaxed);
        Some((Arc::clone(script), found.is_local))
    }
}
