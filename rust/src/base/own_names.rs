//! Names that belong to the proxy alone: users, connections, records in a database that clients
//! cannot see, a channel. They are made and recognized here (in Python: `own_names.py`).

use crate::base::random::nonce;

/// The prefix of the names of the proxy's users and connections. No client's user may have it.
pub const OURS: &[u8] = b"threadis-";

/// The user as which the proxy connects; instances allow it everything.
pub const ADMIN: &[u8] = b"threadis-admin";

/// A user without any rights.
pub const NOBODY: &[u8] = b"threadis-nobody";

/// A user or a connection of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A user that may touch only what a script has declared.
    SandboxUser,
    /// A worker's connection.
    Lane,
    /// A connection while it runs a client's script.
    Script,
    /// A user for testing the rules of others, before the first instance gets them.
    Checked,
    /// A user for testing a line of an ACL file.
    Line,
}

impl Name {
    /// The prefix of such names.
    #[must_use]
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::SandboxUser => b"threadis-guard-",
            Self::Lane => b"threadis-lane-",
            Self::Script => b"threadis-script-",
            Self::Checked => b"threadis-checked",
            Self::Line => b"threadis-line-",
        }
    }

    /// The name of one of them.
    #[must_use]
    pub fn of(self, what: &[u8]) -> Vec<u8> {
        [self.prefix(), what].concat()
    }
}

/// True if a user or a connection is the proxy's.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    name.starts_with(OURS)
}

/// The subject of a record; its name begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// The part of an instance in a write over several, not yet decided.
    Prepared,
    /// A write over several instances is decided.
    Decided,
    /// Written for WAITAOF, and deleted at once.
    BlockingKeys,
    /// An instance has done its part of an operation on all keys. The record expires.
    Swept,
}

const CHANNEL: &[u8] = b"threadis:events:";

const RECORDS: [Record; 4] =
    [Record::Prepared, Record::Decided, Record::BlockingKeys, Record::Swept];

impl Record {
    /// The prefix of its names.
    #[must_use]
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::Prepared => b"threadis:prepared:",
            Self::Decided => b"threadis:decided:",
            Self::BlockingKeys => b"threadis:waited:",
            Self::Swept => b"threadis:swept:",
        }
    }

    /// The name of a record.
    #[must_use]
    pub fn of(self, what: &[u8]) -> Vec<u8> {
        [self.prefix(), what].concat()
    }
}

/// A unique name.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn unique() -> rustix::io::Result<Vec<u8>> {
    Ok(nonce()?[..24].to_vec())
}

/// A channel of the proxy that cannot be guessed, for marks between what instances publish.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn channel() -> rustix::io::Result<Vec<u8>> {
    Ok([CHANNEL, &nonce()?].concat())
}

/// True if a channel is one of the proxy's.
#[must_use]
pub fn is_channel(name: &[u8]) -> bool {
    let nonce = name.strip_prefix(CHANNEL);
    nonce.is_some_and(|nonce| nonce.len() == 32 && nonce.iter().all(u8::is_ascii_hexdigit))
}

/// True if a key is a record of the proxy, under a name of a worker (process, worker, number) or of
/// the coordinator (`unique`).
#[must_use]
pub fn is_record(key: &[u8]) -> bool {
    let Some(name) = RECORDS.iter().find_map(|record| key.strip_prefix(record.prefix())) else {
        return false;
    };
    let is_hex = |word: &[u8]| word.iter().all(u8::is_ascii_hexdigit);
    let is_number = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let words: Vec<&[u8]> = name.split(|&byte| byte == b'-').collect();
    match words[..] {
        [unique] => unique.len() == 24 && is_hex(unique),
        [process, worker, number] => {
            process.len() == 16 && is_hex(process) && is_number(worker) && is_number(number)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_users_and_connections_are_known_and_no_others() {
        let all = [Name::SandboxUser, Name::Lane, Name::Script, Name::Checked, Name::Line];
        for name in all {
            assert!(is_ours(&name.of(b"7")));
        }
        assert!(is_ours(ADMIN));
        assert!(!is_ours(b"threadi") && !is_ours(b"threadis") && !is_ours(b"a-threadis-"));
    }

    #[test]
    fn our_names_are_known_and_no_others() {
        let unique = unique().expect("random numbers");
        for record in RECORDS {
            assert!(is_record(&record.of(&unique)));
            assert!(is_record(&record.of(b"610704a99350f0a2-0-449")));
            assert!(!is_record(&record.of(b"")));
            assert!(!is_record(&record.of(b"610704a99350f0a2-0-")));
            assert!(!is_record(&record.of(b"mine")));
        }
        assert!(!is_record(b"threadis:other:610704a99350f0a2-0-449"));
        assert!(!is_record(&unique));
        assert!(is_channel(&channel().expect("random numbers")));
        assert!(!is_channel(b"threadis:events:mine"));
    }
}
