//! For SLOWLOG and COMMANDLOG: commands that no instance has logged as their client sent them, because
//! workers have answered them by themselves, or have made parts of them for several instances.
//!
//! They wait here until the coordinator takes them. One letter says that there are some; however
//! many clients send PING, the coordinator has no more than that to read.

use crate::resp::request::Args;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// Entries that wait; of more, the oldest are dropped.
const MOST: usize = 1024;

/// Of an entry, as servers keep it: words, and bytes of each.
const WORDS: usize = 32;

const WORD: usize = 128;

/// What an instance has seen of a command: its number, and the words as it logs them.
pub type Seen = (usize, Vec<Vec<u8>>);

/// A command that some log may want.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The client's.
    pub address: String,
    /// The client's.
    pub name: Vec<u8>,
    /// Without secrets, and not everything of long ones.
    pub args: Vec<Vec<u8>>,
    /// When it was answered, in seconds since 1970.
    pub at: u64,
    /// Microseconds from when it was taken until its last part was answered: no part took longer.
    pub took: u64,
    /// Bytes of what the client has sent.
    pub request: usize,
    /// Bytes of the reply; of commands of a transaction, with those of all before it.
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
    /// Adds one; true if it is the first that waits, of which the coordinator is to be told.
    pub(crate) fn add(&self, entry: Entry) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(entry);
        if entries.len() > MOST {
            entries.pop_front();
            self.dropped.fetch_add(1, Relaxed);
        }
        entries.len() == 1
    }

    /// Takes all, oldest first.
    pub fn take(&self) -> VecDeque<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// A command as servers log it; words at places that `is_secret` are replaced.
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
