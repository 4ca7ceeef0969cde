//! Key → slot → instance; exactly Redis Cluster's CRC16 and hash tags.

use memchr::memchr;

/// Slots of the whole key space.
pub const SLOTS: usize = 16_384;

/// CRC16/XMODEM of every byte, and of every byte followed by one zero byte: two bytes a step.
const TABLES: [[u16; 256]; 2] = tables();

#[allow(clippy::cast_possible_truncation, reason = "a constant loop to 255")]
const fn tables() -> [[u16; 256]; 2] {
    let mut tables = [[0u16; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 16 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
            if bit == 8 {
                tables[0][byte] = crc;
            }
        }
        tables[1][byte] = crc;
        byte += 1;
    }
    tables
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[1][usize::from(high ^ pair[0])] ^ TABLES[0][usize::from(low ^ pair[1])];
    }
    for &byte in pairs.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from(crc.to_be_bytes()[0] ^ byte)];
    }
    crc
}

/// The slot of a key: CRC16 of the first non-empty `{…}`, else of the whole key.
#[must_use]
pub fn slot(key: &[u8]) -> usize {
    usize::from(crc16(tag(key))) % SLOTS
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else {
        return key;
    };
    match memchr(b'}', &key[open + 1..]) {
        None | Some(0) => key,
        Some(length) => &key[open + 1..=open + length],
    }
}

/// Which instance each slot lives on.
#[derive(Debug, Clone)]
pub struct SlotMap(Box<[u16]>);

impl SlotMap {
    /// Builds the map from `(first, last, instance)` ranges.
    ///
    /// # Errors
    /// A sentence, unless the ranges cover every slot exactly once with known instances.
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
            None => Ok(Self(map)),
        }
    }

    /// The instance a key lives on.
    #[must_use]
    pub fn instance(&self, key: &[u8]) -> u16 {
        self.0[slot(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_clusters() {
        // The first is the check value of the Redis Cluster specification; the rest were
        // answered by CLUSTER KEYSLOT of a stock server.
        assert_eq!(crc16(b"123456789"), 0x31C3);
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
    fn a_map_covers_every_slot_once() {
        assert!(SlotMap::new(&[(0, 8191, 0), (8192, 16383, 1)], 2).is_ok());
        assert!(SlotMap::new(&[(0, 8191, 0), (8193, 16383, 1)], 2).is_err());
        assert!(SlotMap::new(&[(0, 8192, 0), (8192, 16383, 1)], 2).is_err());
        assert!(SlotMap::new(&[(0, 16383, 1)], 1).is_err());
        assert!(SlotMap::new(&[(0, 16384, 0)], 1).is_err());
    }
}
