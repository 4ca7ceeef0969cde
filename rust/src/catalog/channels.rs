//! The kinds of subscriptions, and the commands on them.

use std::sync::Arc;

/// What a subscription names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

/// All kinds; a kind is its own index in arrays.
pub const KINDS: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

/// The name of a channel or a pattern.
pub type Name = Arc<[u8]>;

/// What a worker does about subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
    Subscribe(Kind),
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe(Kind),
    /// PUBLISH, SPUBLISH.
    Publish(Kind),
    /// PUBSUB CHANNELS, SHARDCHANNELS.
    Names(Kind),
    /// PUBSUB NUMSUB, SHARDNUMSUB.
    Count(Kind),
    /// PUBSUB NUMPAT.
    Patterns,
}

impl Verb {
    /// Parses its name in the command table.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "subscribe" => Self::Subscribe(Kind::Channel),
            "psubscribe" => Self::Subscribe(Kind::Pattern),
            "ssubscribe" => Self::Subscribe(Kind::Shard),
            "unsubscribe" => Self::Unsubscribe(Kind::Channel),
            "punsubscribe" => Self::Unsubscribe(Kind::Pattern),
            "sunsubscribe" => Self::Unsubscribe(Kind::Shard),
            "publish" => Self::Publish(Kind::Channel),
            "spublish" => Self::Publish(Kind::Shard),
            "channels" => Self::Names(Kind::Channel),
            "shardchannels" => Self::Names(Kind::Shard),
            "numsub" => Self::Count(Kind::Channel),
            "shardnumsub" => Self::Count(Kind::Shard),
            "numpat" => Self::Patterns,
            _ => return None,
        })
    }
}

/// The kind and the names of subscriptions that have failed.
pub(crate) type Refused = (Kind, Vec<Vec<u8>>);

/// True if this name can match keyspace events.
#[must_use]
pub fn concerns_events(kind: Kind, name: &[u8]) -> bool {
    const EVENTS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];
    let special = match kind {
        Kind::Channel => None,
        Kind::Pattern => name.iter().position(|byte| b"*?[\\".contains(byte)),
        Kind::Shard => return false,
    };
    EVENTS.iter().any(|event| match special.map(|at| &name[..at]) {
        None => name.starts_with(event),
        Some(fixed) => fixed.starts_with(event) || event.starts_with(fixed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_concerns_events_if_it_may_match_one() {
        for name in
            [&b"*"[..], b"__key*", b"__keyevent@0__:set", b"__keyspace@[01]__:*", b"_?*", b""]
        {
            let is_pattern = name != b"";
            assert_eq!(concerns_events(Kind::Pattern, name), is_pattern, "{name:?}");
        }
        assert!(concerns_events(Kind::Channel, b"__keyspace@3__:key"));
        assert!(!concerns_events(Kind::Channel, b"__key*"));
        assert!(!concerns_events(Kind::Pattern, b"news.*"));
        assert!(!concerns_events(Kind::Shard, b"__keyspace@3__:key"));
    }
}
