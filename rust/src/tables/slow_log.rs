//! For SLOWLOG and COMMANDLOG: commands that no instance has logged as their client sent them,
//! because a worker answered them itself, or split them into parts for several instances.
//!
//! The entries wait here for the coordinator. One letter announces them, so the coordinator has no
//! more to read than that, no matter how many clients send PING.

use crate::resp::request::Args;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// The most entries that wait; beyond it, the oldest are dropped.
const MOST: usize = 1024;

/// The most arguments of an entry, and bytes of each, as servers keep them.
const WORDS: usize = 32;

const WORD: usize = 128;

/// How an instance has logged a part: its number, and the arguments.
pub type Seen = (usize, Vec<Vec<u8>>);

/// A command that a log may want.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The client's address.
    pub address: String,
    /// The client's name.
    pub name: Vec<u8>,
    /// Without secrets; long arguments are cut.
    pub args: Vec<Vec<u8>>,
    /// When it was answered, in seconds since 1970.
    pub at: u64,
    /// The microseconds from taking it to the reply of its last part. No part took longer.
    pub took: u64,
    /// The bytes that the client has sent.
    pub request: usize,
    /// The bytes of the reply; in a transaction, including all replies before it.
    pub reply: usize,
    /// Its parts.
    pub parts: Vec<Seen>,
}

/// The entries of all workers.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: Mutex<VecDeque<Entry>>,
    dropped: AtomicU64,
}

impl SlowLog {
    /// Adds an entry; true if it is the first that waits, so that the coordinator must be notified.
    pub(crate) fn add(&self, entry: Entry) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(entry);
        if entries.len() > MOST {
            entries.pop_front();
            self.dropped.fetch_add(1, Relaxed);
        }
        entries.len() == 1
    }

    /// Takes all entries, oldest first.
    pub fn take(&self) -> VecDeque<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of dropped entries.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// A command as servers log it; arguments at places that `is_secret` are replaced.
pub(crate) fn shortened(
    args: Args,
    redacted: &[u8],
    is_secret: impl Fn(usize) -> bool,
) -> Vec<Vec<u8>> {
    let shown = if args.len() > WORDS { WORDS - 1 } else { args.len() };
    let words = args.iter().take(shown).enumerate();
    let mut words: Vec<Vec<u8>> = words
        .map(|(at, word)| match word {
            _ if is_secret(at) => redacted.to_vec(),
            word if word.len() > WORD => {
                let rest = format!("... ({} more bytes)", word.len() - WORD);
                [&word[..WORD], rest.as_bytes()].concat()
            }
            word => word.to_vec(),
        })
        .collect();
    if args.len() > shown {
        words.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_dropped_and_only_the_first_is_news() {
        let log = SlowLog::default();
        let entry = |number: usize| Entry {
            address: number.to_string(),
            name: Vec::new(),
            args: Vec::new(),
            at: 0,
            took: 0,
            request: 0,
            reply: 0,
            parts: Vec::new(),
        };
        assert!(log.add(entry(0)));
        assert!((1..MOST + 5).all(|number| !log.add(entry(number))));
        let taken = log.take();
        assert_eq!((taken.len(), log.dropped()), (MOST, 5));
        assert_eq!(taken[0], entry(5));
        assert!(log.add(entry(0)));
    }
}
