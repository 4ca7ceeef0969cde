//! Kinds of subscriptions, and what commands do about them.

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

/// All kinds; a kind is its own place in arrays.
pub const KINDS: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

/// The name of a channel or a pattern.
pub type Name = Arc<[u8]>;

/// What a worker does about subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// SUBSCRIBE and its kin.
    Subscribe(Kind),
    /// UNSUBSCRIBE and its kin.
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
    /// What the command table calls it.
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

/// Subscriptions that come to nothing.
pub(crate) type Refused = (Kind, Vec<Vec<u8>>);
