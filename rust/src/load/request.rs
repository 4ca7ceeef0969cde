//! Writes requests, and remembers key by key which replies they are owed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::config::{Batch, Keys, LoadConfig, Mix};
use super::link::Link;
use super::value::{Stamp, Values};
use crate::routing::slots::{SLOTS, slot};

const KEY: &[u8] = b"$16\r\nkey:000000000000\r\n"; // as redis-benchmark names its keys
const KEY_START: usize = "$16\r\n".len();
const KEY_DIGITS_END: usize = KEY.len() - 2;

/// What the reply about one key must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The key of the request.
    pub key: u32,
    /// The only write of this client that may be read; [`ANY`] if any value of the key is valid.
    pub sequence: u32,
    /// The kind of reply.
    pub kind: Kind,
}

/// The valid replies to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value of the key.
    Get,
    /// `+OK`
    Set,
    /// Anything but an error.
    Any,
}

/// No particular write is expected.
pub const ANY: u32 = 0;

/// A client's share of the keys, and what it wrote.
#[derive(Debug)]
pub struct Author {
    /// Its number, over all threads.
    pub client: u32,
    /// The number of writes so far.
    pub sequence: u32,
    /// For prepared batches: the next one to send.
    pub batch: usize,
    /// Its first key: 0 unless keys are private.
    pub first_key: u32,
    /// For private keys: the last write to each; [`ANY`] if none, or if a write failed. Otherwise
    /// empty.
    pub last_writes: Vec<u32>,
}

impl Author {
    /// The last write of this client to `key`; [`ANY`] if unknown.
    pub fn last_write(&self, key: u32) -> u32 {
        let at = key.wrapping_sub(self.first_key) as usize;
        self.last_writes.get(at).copied().unwrap_or(ANY)
    }

    /// Notes that `sequence` was written to `key`; [`ANY`]: that a write failed.
    pub fn note_write(&mut self, key: u32, sequence: u32) {
        let at = key.wrapping_sub(self.first_key) as usize;
        if let Some(last) = self.last_writes.get_mut(at) {
            *last = sequence;
        }
    }
}

/// Chooses keys, counted from the client's first.
#[derive(Debug)]
enum Picker {
    Uniform(u32),
    Zipf(Zipf<f64>),
    Each { next: u32, end: u32 },
}

/// Writes the requests of one load thread.
#[derive(Debug)]
pub struct Requests {
    picker: Picker,
    mix: Mix,
    batches: Vec<Batch>,
    stride: usize,   // from one batch of a client to its next
    owners: Vec<u8>, // of a cluster: the node that owns each key; else empty
    random: SmallRng,
    values: Values,
    set_size: Vec<u8>, // "$16\r\n" of every SET's value
    mget: Vec<u8>,     // "*11\r\n$4\r\nMGET\r\n"
    mset: Vec<u8>,     // "*21\r\n$4\r\nMSET\r\n"
}

impl Requests {
    /// Requests according to `config`, chosen with `seed`.
    pub fn new(config: &LoadConfig, seed: u64) -> Self {
        let count = config.keys_per_client();
        let picker = match config.keys {
            Keys::Zipf(exponent) => Zipf::new(f64::from(count), exponent).ok().map(Picker::Zipf),
            Keys::Uniform => None,
        };
        Self {
            picker: picker.unwrap_or(Picker::Uniform(count)),
            mix: config.mix,
            batches: config.batches.clone(),
            stride: config.connections,
            owners: owners(config),
            random: SmallRng::seed_from_u64(seed),
            values: Values::new(config.value_size),
            set_size: format!("${}\r\n", config.value_size).into_bytes(),
            mget: format!("*{}\r\n$4\r\nMGET\r\n", config.keys_per_command() + 1).into_bytes(),
            mset: format!("*{}\r\n$4\r\nMSET\r\n", config.keys_per_command() * 2 + 1).into_bytes(),
        }
    }

    /// One SET for each key, for preloading.
    pub fn each(config: &LoadConfig) -> Self {
        let picker = Picker::Each { next: 0, end: config.key_count };
        Self { picker, mix: Mix::Set, batches: Vec::new(), ..Self::new(config, 0) }
    }

    /// The checker of values of the configured size.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Appends one command of `author`, or one prepared batch, to its link, along with the replies
    /// owed; false if none is left.
    #[inline]
    pub fn append(&mut self, author: &mut Author, links: &mut [Link]) -> bool {
        if !self.batches.is_empty() {
            self.append_batch(author, &mut links[0]);
            return true;
        }
        match self.mix {
            Mix::Get => self.append_one(Kind::Get, author, links),
            Mix::Set => self.append_one(Kind::Set, author, links),
            Mix::Mixed { set_ratio } => {
                let is_set = self.random.random::<f64>() < set_ratio;
                self.append_one(if is_set { Kind::Set } else { Kind::Get }, author, links)
            }
            Mix::Mget { keys } => self.append_many(Kind::Get, keys, author, &mut links[0]),
            Mix::Mset { keys } => self.append_many(Kind::Set, keys, author, &mut links[0]),
        }
    }

    #[inline]
    fn append_one(&mut self, kind: Kind, author: &mut Author, links: &mut [Link]) -> bool {
        let Some(key) = self.pick(author) else {
            return false;
        };
        let owner = self.owners.get(key as usize).copied().unwrap_or(0);
        let link = &mut links[usize::from(owner)];
        if kind == Kind::Set {
            link.out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
            self.append_pair(key, author, &mut link.out);
        } else {
            link.out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
            append_key(key, &mut link.out);
        }
        link.owed.push(Expected { key, sequence: author.last_write(key), kind });
        true
    }

    /// Appends an MGET or MSET.
    fn append_many(
        &mut self,
        kind: Kind,
        keys: usize,
        author: &mut Author,
        link: &mut Link,
    ) -> bool {
        let is_set = kind == Kind::Set;
        link.out.extend_from_slice(if is_set { &self.mset } else { &self.mget });
        for _ in 0..keys {
            let Some(key) = self.pick(author) else {
                return false;
            };
            if is_set {
                self.append_pair(key, author, &mut link.out);
            } else {
                append_key(key, &mut link.out);
            }
            link.owed.push(Expected { key, sequence: author.last_write(key), kind });
        }
        true
    }

    /// Clients share the batches: client `n` of `c` sends those with the numbers n, n + c, n + 2c …
    fn append_batch(&self, author: &mut Author, link: &mut Link) {
        let batch = &self.batches[author.batch % self.batches.len()];
        author.batch += self.stride;
        link.out.extend_from_slice(&batch.request);
        let expected = Expected { key: 0, sequence: ANY, kind: Kind::Any };
        link.owed.resize(link.owed.len() + batch.replies, expected);
    }

    /// A key, and the next value of `author` for it.
    #[inline]
    fn append_pair(&self, key: u32, author: &mut Author, out: &mut Vec<u8>) {
        author.sequence = author.sequence.checked_add(1).unwrap_or(1);
        append_key(key, out);
        out.extend_from_slice(&self.set_size);
        let stamp = Stamp { key, client: author.client, sequence: author.sequence };
        self.values.append(stamp, out);
        out.extend_from_slice(b"\r\n");
        author.note_write(key, author.sequence);
    }

    #[inline]
    fn pick(&mut self, author: &Author) -> Option<u32> {
        let chosen = match &mut self.picker {
            Picker::Uniform(count) => self.random.random_range(0..*count),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1.0 to a u32
            Picker::Zipf(zipf) => zipf.sample(&mut self.random) as u32 - 1,
            Picker::Each { next, end } if *next < *end => {
                *next += 1;
                *next - 1
            }
            Picker::Each { .. } => return None,
        };
        Some(author.first_key + chosen)
    }
}

/// The node of each key. The nodes of a cluster own equal shares of the slots, one after the other.
fn owners(config: &LoadConfig) -> Vec<u8> {
    let nodes = config.nodes.len();
    if nodes == 1 {
        return Vec::new();
    }
    let owner = |key| {
        let mut bulk = Vec::new();
        append_key(key, &mut bulk);
        let name = &bulk[KEY_START..KEY_DIGITS_END];
        u8::try_from(slot(name) * nodes / SLOTS).unwrap_or(u8::MAX)
    };
    (0..config.key_count).map(owner).collect()
}

#[inline]
fn append_key(key: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(KEY);
    let mut rest = key;
    let mut at = start + KEY_DIGITS_END;
    while rest > 0 {
        at -= 1;
        out[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_redis_benchmark_does() {
        for key in [0, 7, 10, 99_999, u32::MAX] {
            let mut out = Vec::new();
            append_key(key, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("$16\r\nkey:{key:012}\r\n"));
        }
    }

    #[test]
    fn an_author_remembers_only_private_keys() {
        let mut author =
            Author { client: 1, sequence: 0, batch: 0, first_key: 10, last_writes: vec![ANY; 5] };
        author.note_write(12, 3);
        author.note_write(9, 4);
        author.note_write(15, 5);
        assert_eq!([9, 10, 12, 15].map(|key| author.last_write(key)), [ANY, ANY, 3, ANY]);
    }
}
