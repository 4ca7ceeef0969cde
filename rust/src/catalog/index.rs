//! The index of command names.

/// Names without regard to case, in one open-addressed array. A look-up costs a hash and, nearly
/// always, one comparison.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// Its length is a power of two, and it is at most a quarter full.
    buckets: Vec<Bucket>,
    count: usize,
}

/// A name along with its place, so that a look-up touches one cache line.
#[derive(Debug, Clone, Default)]
struct Bucket {
    name: Name,
    place: usize,
}

/// The last command that was looked up, as it was spelled; never one with subcommands.
#[derive(Debug, Default)]
pub struct Recent {
    name: Name,
    pub(crate) place: usize,
}

/// A short name: that of a stock command has 20 bytes at most, those of modules may be longer.
#[derive(Debug, Clone, Default)]
enum Name {
    #[default]
    Free,
    Short {
        length: u8,
        bytes: [u8; SHORT_NAME],
    },
    Long(Box<[u8]>),
}

const SHORT_NAME: usize = 22;

impl Name {
    pub(crate) fn new(name: &[u8]) -> Self {
        match u8::try_from(name.len()) {
            Ok(length) if name.len() <= SHORT_NAME => {
                let mut bytes = [0; SHORT_NAME];
                bytes[..name.len()].copy_from_slice(name);
                Self::Short { length, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Free => &[],
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Recent {
    /// Remembers a name, if it is short.
    pub(crate) fn note(&mut self, name: &[u8], place: usize) {
        if name.len() <= SHORT_NAME {
            *self = Self { name: Name::new(name), place };
        }
    }

    pub(crate) fn is(&self, name: &[u8]) -> bool {
        self.name.bytes() == name && !name.is_empty()
    }
}

impl Index {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn insert(&mut self, name: &[u8], place: usize) {
        self.count += 1;
        if self.count * 4 > self.buckets.len() {
            let larger = vec![Bucket::default(); (self.count * 8).next_power_of_two()];
            for bucket in std::mem::replace(&mut self.buckets, larger) {
                if !matches!(bucket.name, Name::Free) {
                    self.link(bucket);
                }
            }
        }
        self.link(Bucket { name: Name::new(name), place });
    }

    fn link(&mut self, bucket: Bucket) {
        let mask = self.buckets.len() - 1;
        let mut at = hash(bucket.name.bytes()) & mask;
        while !matches!(self.buckets[at].name, Name::Free) {
            at = (at + 1) & mask;
        }
        self.buckets[at] = bucket;
    }

    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        let mask = self.buckets.len().checked_sub(1)?;
        let mut at = hash(name) & mask;
        loop {
            let bucket = &self.buckets[at];
            if matches!(bucket.name, Name::Free) {
                return None;
            }
            if bucket.name.bytes().eq_ignore_ascii_case(name) {
                return Some(bucket.place);
            }
            at = (at + 1) & mask;
        }
    }
}

/// FNV-1a with the case bit set, so that GET and get are equal.
fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    for &byte in name {
        hash = (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    }
    (hash ^ (hash >> 15)) as usize
}
