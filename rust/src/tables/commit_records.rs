//! Commits that are done but for one record: whoever next has something for its instance deletes it.

use crate::base::random::nonce;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Records that one message deletes.
const MOST: usize = 512;

/// Commits that are done but for the record at the instance that decided, of all workers.
#[derive(Debug)]
pub struct Finished {
    /// Begins the names of all commits of this process.
    pub prefix: Vec<u8>,
    names: Mutex<HashMap<usize, Vec<Vec<u8>>>>,
    /// How often each instance has written and deleted a record of theirs.
    records: Mutex<HashMap<usize, u64>>,
}

impl Finished {
    /// None so far; the prefix is one that no other process had.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            prefix: nonce()?[..16].to_vec(),
            names: Mutex::default(),
            records: Mutex::default(),
        })
    }

    /// A commit is done.
    pub(crate) fn add(&self, first: usize, name: Vec<u8>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(first).or_default().push(name);
    }

    /// Each of these had a record of a commit, which it deletes.
    pub(crate) fn count_records(&self, instances: impl Iterator<Item = usize>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        instances.for_each(|instance| *records.entry(instance).or_default() += 1);
    }

    /// How many an instance had.
    pub fn records_of(&self, instance: usize) -> u64 {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(&instance).copied().unwrap_or_default()
    }

    /// Names whose records shall be deleted with what is sent next to this instance.
    pub fn take(&self, first: usize) -> Vec<Vec<u8>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = names.get_mut(&first) else { return Vec::new() };
        let count = found.len().min(MOST);
        found.drain(..count).collect()
    }

    /// True if there is no record to delete.
    pub(crate) fn is_empty(&self) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.values().all(Vec::is_empty)
    }
}
