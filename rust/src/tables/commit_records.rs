//! Commits that are finished except for one record, which is deleted along with the next commit to
//! its instance.

use crate::base::random::nonce;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The most records that one message deletes.
const MOST: usize = 512;

/// Commits of all workers that are finished except for the record at their leader.
#[derive(Debug)]
pub struct Finished {
    /// The prefix of the names of all commits of this process.
    pub prefix: Vec<u8>,
    names: Mutex<HashMap<usize, Vec<Vec<u8>>>>,
    /// How many records of commits each instance has written and deleted.
    records: Mutex<HashMap<usize, u64>>,
}

impl Finished {
    /// Without commits; the prefix is unique to this process.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            prefix: nonce()?[..16].to_vec(),
            names: Mutex::default(),
            records: Mutex::default(),
        })
    }

    /// Adds a finished commit.
    pub(crate) fn add(&self, first: usize, name: Vec<u8>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(first).or_default().push(name);
    }

    /// Counts one record, written and deleted again, at each of these instances.
    pub(crate) fn count_records(&self, instances: impl Iterator<Item = usize>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        instances.for_each(|instance| *records.entry(instance).or_default() += 1);
    }

    /// The number of records that an instance has had.
    pub fn records_of(&self, instance: usize) -> u64 {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(&instance).copied().unwrap_or_default()
    }

    /// Takes the names whose records are to be deleted with the next message to this instance.
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
