//! Where the keys of a command are.

use crate::catalog::table::Row;
use crate::resp::request::Args;
use crate::routing::placement::Placement;

/// Where the keys of a command are.
pub(crate) enum Owner {
    /// It has no keys, as far as its syntax shows.
    Nobody,
    One(usize),
    Several,
}

/// Finds the instances of a command's keys.
pub(crate) fn owner(row: &Row, args: Args, db: u32, placement: &Placement) -> Owner {
    let mut first = None;
    for span in row.keys.iter().filter_map(|spec| spec.span(args)) {
        for index in span.indices() {
            let instance = usize::from(placement.instance(db, args.get(index)));
            if *first.get_or_insert(instance) != instance {
                return Owner::Several;
            }
        }
    }
    first.map_or(Owner::Nobody, Owner::One)
}

/// True if a word among the arguments makes this a different command.
pub(crate) fn has_special_word(row: &Row, args: Args) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| row.words_until.is_empty() || !arg.eq_ignore_ascii_case(&row.words_until))
        .any(|arg| is_word(&row.special_words, arg))
}

fn is_word(words: &[Vec<u8>], arg: &[u8]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(arg))
}
