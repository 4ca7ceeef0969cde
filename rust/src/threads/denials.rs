//! Clients whose commands ACL rules denied. ACL LOG needs them, because an instance's own log knows
//! only the lane that carried the command.

use crate::client::session::ClientInfo;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The most entries that are kept, as many as ACL LOG of one server keeps. Beyond it, the oldest
/// are dropped.
const MOST: usize = 128;

/// The latest denial of each user and command.
#[derive(Debug, Default)]
pub struct Denials {
    /// Each with its Unix time in milliseconds, oldest first.
    entries: Mutex<VecDeque<(u64, ClientInfo)>>,
}

impl Denials {
    /// Adds a client whose command was just denied.
    pub(crate) fn add(&self, client: ClientInfo) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(_, one)| (&one.user, &one.command) != (&client.user, &client.command));
        entries.push_back((now, client));
        if entries.len() > MOST {
            entries.pop_front();
        }
    }

    /// All entries, oldest first.
    pub fn all(&self) -> Vec<(u64, ClientInfo)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64, command: String) -> ClientInfo {
        ClientInfo { id, command, ..ClientInfo::default() }
    }

    #[test]
    fn the_latest_of_each_command_is_kept_and_no_more_than_there_may_be() {
        let denials = Denials::default();
        denials.add(client(1, "get".into()));
        denials.add(client(2, "set".into()));
        denials.add(client(3, "get".into()));
        let ids = |denials: &Denials| -> Vec<u64> {
            denials.all().iter().map(|(_, client)| client.id).collect()
        };
        assert_eq!(ids(&denials), [2, 3]);
        for number in 0..MOST as u64 {
            denials.add(client(10 + number, number.to_string()));
        }
        assert_eq!((ids(&denials).len(), ids(&denials)[0]), (MOST, 10));
    }
}
