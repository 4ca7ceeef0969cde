//! The keys of a part of a commit, in the format of its record: `[database, name, exclusive]` each.

use crate::base::number::{parse_i64, push_u64};
use crate::resp::reply::{aggregate, split_first, text};
use crate::resp::request::{push_array, push_bulk};

/// Adds a key, and whether other clients may not even read it.
pub(crate) fn push(out: &mut Vec<u8>, (db, name): (u32, &[u8]), is_exclusive: bool) {
    push_array(out, 3);
    push_integer(out, u64::from(db));
    push_bulk(out, name);
    push_integer(out, u64::from(is_exclusive));
}

/// The keys, each with its database.
pub(crate) fn read(mut packed: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (entry, rest) = split_first(packed)?;
        packed = rest;
        let (db, entry) = split_first(aggregate(entry)?.2)?;
        let db = parse_i64(&db[1..db.len() - 2])?;
        Some((u32::try_from(db).ok()?, text(split_first(entry)?.0)?))
    })
}

/// Appends `:n\r\n`.
pub(crate) fn push_integer(out: &mut Vec<u8>, value: u64) {
    out.push(b':');
    push_u64(out, value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_again() {
        let mut packed = Vec::new();
        let keys: [(u32, &[u8]); 3] = [(0, b"a"), (15, b""), (1, b"*1\r\n$1\r\na\r\n")];
        for (at, key) in keys.into_iter().enumerate() {
            push(&mut packed, key, at == 1);
        }
        assert_eq!(read(&packed).collect::<Vec<_>>(), keys);
    }
}
