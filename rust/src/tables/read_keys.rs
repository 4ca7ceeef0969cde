//! The keys that tracking clients have read, with their readers; a random key is found at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The readers of a key.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    pub(crate) ids: HashSet<u64>,
    /// The order of the keys that one command has written.
    pub(crate) written: u64,
    /// The index of the key in `all`.
    at: usize,
}

/// All keys that were read.
#[derive(Debug, Default)]
pub(crate) struct ReadKeys {
    readers: HashMap<Arc<[u8]>, Readers>,
    /// The same keys in no order, to choose one from. Finding the first entry of a hash table gets
    /// slower and slower while it is emptied from its front, and soon that is the newest key.
    all: Vec<Arc<[u8]>>,
    /// The state of a sequence that only has to look random.
    last: u64,
}

impl ReadKeys {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Readers> {
        self.readers.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Readers> {
        self.readers.get_mut(key)
    }

    /// Adds a reader to a key; true if it is new there.
    pub(crate) fn add(&mut self, key: &[u8], id: u64) -> bool {
        if let Some(readers) = self.readers.get_mut(key) {
            return readers.ids.insert(id);
        }
        let key: Arc<[u8]> = key.into();
        let readers = Readers { ids: HashSet::from([id]), written: 0, at: self.all.len() };
        self.all.push(Arc::clone(&key));
        self.readers.insert(key, readers);
        true
    }

    /// Removes a key; its readers.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Readers> {
        let readers = self.readers.remove(key)?;
        self.all.swap_remove(readers.at);
        if let Some(moved) = self.all.get(readers.at)
            && let Some(others) = self.readers.get_mut(moved)
        {
            others.at = readers.at;
        }
        Some(readers)
    }

    /// A random key, each with the same probability.
    pub(crate) fn any(&mut self) -> Option<Arc<[u8]>> {
        // Knuth's MMIX generator; its high bits are good.
        self.last = self
            .last
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let count = u64::try_from(self.all.len()).ok().filter(|&count| count > 0)?;
        let at = usize::try_from((self.last >> 32) % count).ok()?;
        self.all.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::ReadKeys;

    fn key(number: usize) -> Vec<u8> {
        format!("key:{number}").into_bytes()
    }

    #[test]
    fn any_key_is_seldom_the_newest() {
        const KEPT: usize = 1000;
        let mut keys = ReadKeys::default();
        let mut newest_went = 0;
        for number in 0..20 * KEPT {
            assert!(keys.add(&key(number), 1));
            if keys.len() > KEPT
                && let Some(gone) = keys.any()
            {
                assert!(keys.remove(&gone).is_some());
                newest_went += usize::from(*gone == *key(number));
            }
        }
        assert_eq!(keys.len(), KEPT);
        assert!(newest_went < 100, "{newest_went}");
    }

    #[test]
    fn what_is_removed_is_in_neither_list() {
        let mut keys = ReadKeys::default();
        for number in 0..100 {
            keys.add(&key(number), 1);
            assert!(!keys.add(&key(number), 1) && keys.add(&key(number), 2));
        }
        for number in (0..100).step_by(2) {
            assert_eq!(keys.remove(&key(number)).map(|readers| readers.ids.len()), Some(2));
            assert!(keys.remove(&key(number)).is_none());
        }
        assert_eq!(keys.len(), 50);
        while let Some(some) = keys.any() {
            assert!(keys.get(&some).is_some() && keys.remove(&some).is_some());
        }
        assert_eq!(keys.len(), 0);
    }
}
