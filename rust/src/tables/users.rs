//! The ACL users that clients are authenticated as, by name and number.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

const DEFAULT: &[u8] = b"default";

/// A user as the coordinator announces it.
#[derive(Debug, Clone)]
pub struct User {
    /// The name, as in ACL SETUSER.
    pub name: Arc<[u8]>,
    /// 0: has all rights; otherwise a number that is never reused for another user.
    pub id: u32,
}

/// What all workers know of users.
#[derive(Debug, Default)]
pub struct Users {
    /// The restricted users.
    names: Mutex<HashMap<u32, Arc<[u8]>>>,
    /// The number of each user.
    ids: Mutex<HashMap<Arc<[u8]>, u32>>,
    /// The number of changes so far; and the ids no longer in use, each with the change that ended
    /// it.
    changes: AtomicU64,
    outlived: Mutex<Vec<(u64, u32)>>,
    default_id: AtomicU32,
    default_is_open: AtomicBool,
    /// The coordinator has announced the users.
    are_known: AtomicBool,
}

impl Users {
    /// Sets a user's id; `None`: no user has that name. All workers have seen the first
    /// `seen_by_all` changes. The old id is forgotten once no worker uses it.
    pub(crate) fn set(&self, name: &Arc<[u8]>, id: Option<u32>, seen_by_all: u64) {
        if **name == *DEFAULT {
            self.default_id.store(id.unwrap_or(0), Release);
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match id {
            Some(id) => ids.insert(Arc::clone(name), id),
            None => ids.remove(name),
        };
        drop(ids);
        let change = self.changes.fetch_add(1, Relaxed) + 1;
        let mut outlived = self.outlived.lock().unwrap_or_else(PoisonError::into_inner);
        outlived.extend(before.filter(|&old| old != 0 && id != Some(old)).map(|old| (change, old)));
        let over: Vec<_> = outlived.extract_if(.., |(change, _)| *change <= seen_by_all).collect();
        drop(outlived);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, id) in over {
            names.remove(&id);
        }
        if let Some(id) = id.filter(|&id| id != 0) {
            names.insert(id, Arc::clone(name));
        }
    }

    /// The name of a restricted user.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<Arc<[u8]>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The present id of a user; `None` if it was not announced.
    #[must_use]
    pub fn id(&self, name: &[u8]) -> Option<u32> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// The user of a new connection.
    #[must_use]
    pub fn newcomer(&self) -> User {
        User { name: DEFAULT.into(), id: self.default_id.load(Acquire) }
    }

    /// True if a new connection need not authenticate.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.default_is_open.load(Relaxed)
    }

    /// True once the users are known; no client is accepted before.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.are_known.load(Acquire)
    }

    /// Sets whether a new connection need not authenticate.
    pub fn set_open(&self, is_open: bool) {
        self.default_is_open.store(is_open, Relaxed);
        self.are_known.store(true, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Users};

    #[test]
    fn what_users_were_before_is_forgotten_once_nobody_goes_by_it() {
        let users = Users::default();
        let (ann, bob): (Arc<[u8]>, Arc<[u8]>) = (b"ann"[..].into(), b"bob"[..].into());
        users.set(&ann, Some(1), 0);
        users.set(&ann, Some(2), 0);
        users.set(&bob, Some(3), 1); // not all workers know of the second change
        assert_eq!(users.name(1), Some(Arc::clone(&ann)));
        users.set(&bob, None, 2);
        assert_eq!((users.name(1), users.name(2)), (None, Some(Arc::clone(&ann))));
        assert_eq!((users.id(b"bob"), users.name(3)), (None, Some(Arc::clone(&bob))));
        for id in 4..1000 {
            users.set(&ann, Some(id), u64::from(id));
        }
        assert_eq!(users.names.lock().map(|names| names.len()).ok(), Some(2));
    }
}
