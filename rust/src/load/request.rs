//! Writes requests and remembers, key by key, what they are owed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::config::{Keys, LoadConfig, Mix};
use super::value::{Stamp, Values};

const KEY: &[u8] = b"$16\r\nkey:000000000000\r\n"; // as redis-benchmark names its keys
const KEY_DIGITS_END: usize = KEY.len() - 2;

/// What the reply about one key must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The key that was asked for.
    pub key: u32,
    /// The only write of this client that may be read; [`ANY`] if any value of the key will do.
    pub sequence: u32,
    /// A SET: the reply is `+OK`.
    pub is_set: bool,
}

/// No particular write is expected.
pub const ANY: u32 = 0;

/// A client's place among the keys, and what it wrote.
#[derive(Debug)]
pub struct Author {
    /// Its number, over all threads.
    pub client: u32,
    /// Writes so far.
    pub sequence: u32,
    /// Its first key: 0 unless keys are private.
    pub first_key: u32,
    /// Of private keys, the last write to each, [`ANY`] if none or if a write failed. Else empty.
    pub last_writes: Vec<u32>,
}

impl Author {
    /// The last write of this client to `key`, [`ANY`] if that is not known.
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
    random: SmallRng,
    values: Values,
    set_size: Vec<u8>, // "$16\r\n" of every SET's value
    mget: Vec<u8>,     // "*11\r\n$4\r\nMGET\r\n"
    mset: Vec<u8>,     // "*21\r\n$4\r\nMSET\r\n"
}

impl Requests {
    /// Requests as `config` wants them, chosen by `seed`.
    pub fn new(config: &LoadConfig, seed: u64) -> Self {
        let count = config.keys_per_client();
        let picker = match config.keys {
            Keys::Zipf(exponent) => Zipf::new(f64::from(count), exponent).ok().map(Picker::Zipf),
            Keys::Uniform => None,
        };
        Self {
            picker: picker.unwrap_or(Picker::Uniform(count)),
            mix: config.mix,
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
        Self { picker, mix: Mix::Set, ..Self::new(config, 0) }
    }

    /// Reads values of the size that is written.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Appends one command of `author` to `out` and what it is owed to `owed`; false if none is left.
    #[inline]
    pub fn append(
        &mut self,
        author: &mut Author,
        out: &mut Vec<u8>,
        owed: &mut Vec<Expected>,
    ) -> bool {
        let is_set = match self.mix {
            Mix::Get => false,
            Mix::Set => true,
            Mix::Mixed { set_ratio } => self.random.random::<f64>() < set_ratio,
            Mix::Mset { keys } => {
                out.extend_from_slice(&self.mset);
                for _ in 0..keys {
                    let Some(key) = self.pick(author) else {
                        return false;
                    };
                    self.append_pair(key, author, out);
                    owed.push(Expected { key, sequence: author.last_write(key), is_set: true });
                }
                return true;
            }
            Mix::Mget { keys } => {
                out.extend_from_slice(&self.mget);
                for _ in 0..keys {
                    let Some(key) = self.pick(author) else {
                        return false;
                    };
                    append_key(key, out);
                    owed.push(Expected { key, sequence: author.last_write(key), is_set: false });
                }
                return true;
            }
        };
        let Some(key) = self.pick(author) else {
            return false;
        };
        if is_set {
            out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
            self.append_pair(key, author, out);
        } else {
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
            append_key(key, out);
        }
        owed.push(Expected { key, sequence: author.last_write(key), is_set });
        true
    }

    /// A key and the next value of `author` for it.
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
            Author { client: 1, sequence: 0, first_key: 10, last_writes: vec![ANY; 5] };
        author.note_write(12, 3);
        author.note_write(9, 4);
        author.note_write(15, 5);
        assert_eq!([9, 10, 12, 15].map(|key| author.last_write(key)), [ANY, ANY, 3, ANY]);
    }
}
