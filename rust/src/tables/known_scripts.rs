//! The scripts that workers may run.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// A script that keeps to its keys.
#[derive(Debug)]
struct Known {
    is_local: bool,
    /// It was run since somebody asked.
    was_used: AtomicBool,
}

/// What is known of scripts.
#[derive(Debug, Default)]
pub struct Scripts {
    /// By SHA1, and by their text: whether they touch what begins with one of their keys, too.
    known: RwLock<HashMap<Arc<[u8]>, Known>>,
    /// Milliseconds after which a script runs for too long; 0 while that is not known.
    pub limit: AtomicU64,
    /// What guards may do, besides their keys.
    pub(crate) rules: OnceLock<Vec<Vec<u8>>>,
}

impl Scripts {
    /// Says, once, what guards may do besides their keys.
    pub fn set_rules(&self, rules: Vec<Vec<u8>>) {
        self.rules.get_or_init(|| rules);
    }

    /// A script keeps to its keys; or (`is_local`) to what begins with one of them.
    pub fn learn(&self, script: &[u8], is_local: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(script.into(), Known { is_local, was_used: AtomicBool::new(true) });
    }

    /// It does not.
    pub fn forget(&self, script: &[u8]) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(script);
    }

    /// There are no scripts any more.
    pub fn forget_all(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether it was run since this was asked last.
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
