//! The users of ACL that clients are, by name and number.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

const DEFAULT: &[u8] = b"default";

/// A user as the coordinator tells it.
#[derive(Debug, Clone)]
pub struct User {
    /// As in ACL SETUSER.
    pub name: Arc<[u8]>,
    /// 0: may do everything; else never used for another user.
    pub id: u32,
}

/// What all workers know of users.
#[derive(Debug, Default)]
pub struct Users {
    /// The restricted ones.
    names: Mutex<HashMap<u32, Arc<[u8]>>>,
    /// What each user is.
    ids: Mutex<HashMap<Arc<[u8]>, u32>>,
    /// Changes so far; and ids that are nobody's any more, each with the change that made it so.
    changes: AtomicU64,
    outlived: Mutex<Vec<(u64, u32)>>,
    default_id: AtomicU32,
    default_is_open: AtomicBool,
    /// The coordinator has said who there is.
    are_known: AtomicBool,
}

impl Users {
    /// Takes note of a user, or that there is none of that name; all workers know of so many changes by
    /// now. What a user was before is forgotten once nobody goes by it.
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

    /// A restricted user's name.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<Arc<[u8]>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What a user is now; `None` if nobody has said so.
    #[must_use]
    pub fn id(&self, name: &[u8]) -> Option<u32> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Who a new connection is.
    #[must_use]
    pub fn newcomer(&self) -> User {
        User { name: DEFAULT.into(), id: self.default_id.load(Acquire) }
    }

    /// Whether a new connection need not say who it is.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.default_is_open.load(Relaxed)
    }

    /// Whether it is known who may come: no client is taken before.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.are_known.load(Acquire)
    }

    /// Says whether a new connection need not say who it is.
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
