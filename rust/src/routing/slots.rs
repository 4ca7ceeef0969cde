//! Key → slot, slot → instance; exactly Redis Cluster's CRC16 and hash tags.

use memchr::memchr;

/// The number of slots.
pub const SLOTS: usize = 16_384;

/// `TABLES[n][b]` is the CRC16/XMODEM of byte `b` followed by `n` zero bytes. So eight bytes are
/// looked up independently, instead of one after the other.
const TABLES: [[u16; 256]; 8] = tables();

#[allow(clippy::cast_possible_truncation, reason = "a constant loop to 255")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut zeros = 0;
        while zeros < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                bit += 1;
            }
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(eight[0] ^ high)] ^ TABLES[6][usize::from(eight[1] ^ low)];
        for at in 2..8 {
            crc ^= TABLES[7 - at][usize::from(eight[at])];
        }
    }
    for &byte in rest {
        crc = (crc << 8) ^ TABLES[0][usize::from(crc.to_be_bytes()[0] ^ byte)];
    }
    crc
}

/// The slot of a key: CRC16 of the first `{…}`, or of the whole key if there is none or it is
/// empty.
#[must_use]
#[inline]
pub fn slot(key: &[u8]) -> usize {
    usize::from(crc16(tag(key))) % SLOTS
}

#[inline]
fn tag(key: &[u8]) -> &[u8] {
    if has_brace(key) { tag_of_braced(key) } else { key }
}

/// True if there is a `{`. Checks eight bytes at a time, since most keys are short and have none.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (eights, rest) = key.as_chunks::<8>();
    let in_eights = eights.iter().any(|eight| {
        let zero_where_brace = u64::from_ne_bytes(*eight) ^ (ONES * u64::from(b'{'));
        zero_where_brace.wrapping_sub(ONES) & !zero_where_brace & HIGHS != 0
    });
    in_eights || rest.contains(&b'{')
}

fn tag_of_braced(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else {
        return key;
    };
    match memchr(b'}', &key[open + 1..]) {
        None | Some(0) => key,
        Some(length) => &key[open + 1..=open + length],
    }
}

/// The number of slots that are looked up together.
const BLOCK: usize = 64;

/// The slots of this block are on several instances.
const MIXED: u16 = u16::MAX;

/// The instance of each slot.
#[derive(Debug, Clone)]
pub struct SlotMap {
    /// By block: small enough to stay in the first-level cache, unlike the whole map.
    blocks: Box<[u16; SLOTS / BLOCK]>,
    slots: Box<[u16]>,
}

impl SlotMap {
    /// Builds the map from `(first, last, instance)` ranges.
    ///
    /// # Errors
    /// A message, unless the ranges cover every slot exactly once with known instances.
    pub fn new(ranges: &[(usize, usize, u16)], instances: usize) -> Result<Self, String> {
        const NOBODY: u16 = u16::MAX;
        let mut map = vec![NOBODY; SLOTS].into_boxed_slice();
        for &(first, last, instance) in ranges {
            if usize::from(instance) >= instances {
                return Err(format!("slot map names instance {instance} of {instances}"));
            }
            let range = map.get_mut(first..=last).ok_or("slot map goes past slot 16383")?;
            if range.iter().any(|&owner| owner != NOBODY) {
                return Err(format!("slots {first}-{last} are mapped twice"));
            }
            range.fill(instance);
        }
        match map.iter().position(|&owner| owner == NOBODY) {
            Some(slot) => Err(format!("slot {slot} is on no instance")),
            None => Ok(Self { blocks: Box::new(blocks(&map)), slots: map }),
        }
    }

    /// The instance of a slot.
    #[must_use]
    #[inline]
    pub fn instance(&self, slot: usize) -> u16 {
        match self.blocks[slot / BLOCK] {
            MIXED => self.slots[slot],
            instance => instance,
        }
    }
}

fn blocks(slots: &[u16]) -> [u16; SLOTS / BLOCK] {
    let mut blocks = [MIXED; SLOTS / BLOCK];
    for (block, slots) in blocks.iter_mut().zip(slots.chunks_exact(BLOCK)) {
        if slots.iter().all(|&instance| instance == slots[0]) {
            *block = slots[0];
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_clusters() {
        // The first is the check value of the Redis Cluster specification. The rest are replies of
        // a stock server to CLUSTER KEYSLOT.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // Long enough for every table, checked against the definition.
        let key: Vec<u8> = (0..61u8).map(|n| n.wrapping_mul(37)).collect();
        let mut crc = 0u16;
        for byte in &key {
            crc ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            }
        }
        assert_eq!(crc16(&key), crc);
        for (key, expected) in [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn blocks_say_what_the_map_says() {
        let map = SlotMap::new(&[(0, 5460, 0), (5461, 10922, 1), (10923, 16383, 2)], 3);
        let map = map.expect("covers all");
        for slot in 0..SLOTS {
            assert_eq!(map.instance(slot), map.slots[slot]);
        }
    }

    #[test]
    fn a_map_covers_every_slot_once() {
        assert!(SlotMap::new(&[(0, 8191, 0), (8192, 16383, 1)], 2).is_ok());
        assert!(SlotMap::new(&[(0, 8191, 0), (8193, 16383, 1)], 2).is_err());
        assert!(SlotMap::new(&[(0, 8192, 0), (8192, 16383, 1)], 2).is_err());
        assert!(SlotMap::new(&[(0, 16383, 1)], 1).is_err());
        assert!(SlotMap::new(&[(0, 16384, 0)], 1).is_err());
    }
}
