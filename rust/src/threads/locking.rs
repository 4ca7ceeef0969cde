//! Asks for locks, releases them, and marks them as in doubt. The table decides, and every worker
//! is notified while the table is locked.

use crate::routing::colocation::Group;
use crate::tables::lock::{Fingerprint, Holder, Lock, Want, in_order};
use crate::threads::letters::{Door, Mail, ToCoordinator};
use crate::threads::shared::Shared;
use std::sync::{Arc, PoisonError};

impl Shared {
    /// Adds what to lock for a key: the key itself, and its colocation group if it has one. The
    /// group's lock keeps out scripts of the group, which may touch the key without declaring it.
    pub(crate) fn push_lock_of(
        &self,
        db: u32,
        key: &[u8],
        is_exclusive: bool,
        keys: &mut Vec<(Fingerprint, bool)>,
    ) {
        keys.push((self.lock_table.fingerprint(db, key), is_exclusive));
        if let Some(group) = Group::of(key, &self.placement) {
            keys.push((self.lock_table.fingerprint(db, &group.lock()), false));
        }
    }

    /// Asks for a lock: its token, and the lock if it is granted at once. A lock that workers are
    /// not notified of then holds. For any other, its holder is notified later. The worker `me` is
    /// not notified by mail: it takes the lock from the result.
    pub fn ask_lock(&self, mut want: Want, me: Option<usize>) -> (u64, Option<Arc<Lock>>) {
        in_order(&mut want.keys);
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, begun) = inner.ask(want, self.doors.len());
        // Posted while the table is locked: workers see changes in the order in which they
        // happened.
        begun.iter().filter(|lock| lock.want.is_told).for_each(|lock| self.tell(lock, me));
        (token, begun)
    }

    /// Releases a lock, or cancels the wait for one. Returns the locks that are granted by it and
    /// that the worker `me` must apply itself.
    pub fn release_lock(&self, token: u64, me: Option<usize>) -> Vec<Arc<Lock>> {
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = inner.entries.get(&token) else { return Vec::new() };
        if entry.lock.want.is_told && !inner.waiting.contains(&token) {
            self.others(me).for_each(|door| door.mailbox.post(Mail::Unlock(token)));
        }
        let mut begun = inner.release(token);
        begun.retain(|lock| {
            if lock.want.is_told {
                self.tell(lock, me);
            } else {
                self.lock_holds(lock, None);
            }
            lock.want.is_told
        });
        begun
    }

    /// Reduces a lock that is held to the keys in doubt. Commands on these keys do not wait but are
    /// refused, because the outcome is known only when this instance is back.
    pub fn doubt_lock(&self, token: u64, keys: Vec<(Fingerprint, bool)>, instance: usize) {
        let mut inner = self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((lock, begun)) = inner.doubt(token, keys, instance) else { return };
        self.doors.iter().for_each(|door| door.mailbox.post(Mail::Doubt(Arc::clone(&lock))));
        for lock in begun {
            if lock.want.is_told {
                self.tell(&lock, None);
            } else {
                self.lock_holds(&lock, None);
            }
        }
    }

    /// The instance that must be back before this requested lock can hold.
    pub fn lock_waits_for(&self, token: u64) -> Option<usize> {
        self.lock_table.inner.lock().unwrap_or_else(PoisonError::into_inner).waits_for(token)
    }

    /// The lock holds at one more worker. True if it now holds everywhere and belongs to that
    /// worker.
    pub fn lock_holds_here(&self, lock: &Lock, me: usize) -> bool {
        lock.holds_at_one_more() && self.lock_holds(lock, Some(me))
    }

    fn lock_holds(&self, lock: &Lock, me: Option<usize>) -> bool {
        let token = lock.token;
        match lock.want.holder {
            Holder::Worker(index) if Some(index) == me => return true,
            Holder::Worker(index) => self.doors[index].mailbox.post(Mail::Locked(token)),
            Holder::Coordinator => self.coordinator.post(ToCoordinator::Locked { token }),
        }
        false
    }

    fn tell(&self, lock: &Arc<Lock>, me: Option<usize>) {
        self.others(me).for_each(|door| door.mailbox.post(Mail::Lock(Arc::clone(lock))));
    }

    fn others(&self, me: Option<usize>) -> impl Iterator<Item = &Door> {
        let doors = self.doors.iter().enumerate();
        doors.filter(move |(index, _)| Some(*index) != me).map(|(_, door)| door)
    }
}
