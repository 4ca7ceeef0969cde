//! Subscriptions that have not reached all instances yet.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The oldest number if none is pending.
const NONE: u64 = u64::MAX;

/// The numbers of subscriptions to events that the instances do not have yet, by age.
#[derive(Debug)]
pub struct PendingSubscriptions {
    waiting: Mutex<BTreeSet<u64>>,
    /// The number of the oldest pending one, and of the newest one ever.
    oldest: AtomicU64,
    pub(crate) newest: AtomicU64,
}

impl Default for PendingSubscriptions {
    fn default() -> Self {
        let (oldest, newest) = (AtomicU64::new(NONE), AtomicU64::new(0));
        Self { waiting: Mutex::default(), oldest, newest }
    }
}

impl PendingSubscriptions {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription; its number.
    pub(crate) fn add(&self) -> u64 {
        let mut waiting = self.lock();
        let number = self.newest.fetch_add(1, SeqCst) + 1;
        waiting.insert(number);
        self.note_oldest(&waiting);
        number
    }

    /// The subscription has reached the instances, or is gone.
    pub(crate) fn remove(&self, number: Option<u64>) {
        let Some(number) = number else { return };
        let mut waiting = self.lock();
        waiting.remove(&number);
        self.note_oldest(&waiting);
    }

    /// The time for those up to this number is over: nothing waits for them any more.
    pub(crate) fn give_up(&self, newest: u64) {
        let mut waiting = self.lock();
        *waiting = waiting.split_off(&(newest + 1));
        self.note_oldest(&waiting);
    }

    fn note_oldest(&self, waiting: &BTreeSet<u64>) {
        self.oldest.store(waiting.first().copied().unwrap_or(NONE), SeqCst);
    }

    /// True if one up to this number is pending.
    pub(crate) fn has_some(&self, newest: u64) -> bool {
        self.oldest.load(SeqCst) <= newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_waits_for_those_who_came_before_it() {
        let pending = PendingSubscriptions::default();
        assert!(!pending.has_some(0));
        let (first, second) = (pending.add(), pending.add());
        assert!(pending.has_some(first) && pending.has_some(second));
        pending.remove(Some(first));
        assert!(!pending.has_some(first) && pending.has_some(second));
        pending.remove(Some(second));
        pending.remove(None);
        assert!(!pending.has_some(second));
    }

    #[test]
    fn who_is_not_heard_in_time_holds_up_no_later_write() {
        let pending = PendingSubscriptions::default();
        let (first, second) = (pending.add(), pending.add());
        pending.give_up(first);
        assert!(!pending.has_some(first) && pending.has_some(second));
        pending.give_up(second);
        pending.remove(Some(second));
        assert!(!pending.has_some(second));
    }
}
