//! Finds the keys of a command by the server's own key specifications.

use crate::base::number::parse_i64;
use crate::resp::request::Args;

/// Where the keys begin.
#[derive(Debug, Clone)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// After this word, which is searched from argument `from` on; if negative, backwards from the
    /// end.
    Keyword {
        /// The word, in any case.
        word: Vec<u8>,
        /// The first argument to search.
        from: i64,
    },
}

/// How many keys there are.
#[derive(Debug, Clone)]
pub enum Find {
    /// Every `step`-th argument up to `last`, which counts from the first key, or from the end if
    /// negative. A `limit` > 1 takes only that fraction of the rest (XREAD: keys, then ids).
    Range {
        /// The last key.
        last: i64,
        /// The distance from one key to the next, in arguments.
        step: usize,
        /// The fraction of the rest that are keys; 0 and 1 mean all.
        limit: usize,
    },
    /// As many as the number in argument `number`, from `first` on; both count from where the keys
    /// begin.
    Count {
        /// The argument with the number.
        number: usize,
        /// The argument of the first key.
        first: usize,
        /// The distance from one key to the next, in arguments.
        step: usize,
    },
}

/// One key specification, as `COMMAND` describes it.
#[derive(Debug, Clone)]
pub struct KeySpec {
    /// Where the keys begin.
    pub begin: Begin,
    /// How many keys there are.
    pub find: Find,
}

/// Keys at `first`, `first + step`, … up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The argument of the first key.
    pub first: usize,
    /// The argument of the last key.
    pub last: usize,
    /// The distance from one key to the next, in arguments.
    pub step: usize,
}

impl KeySpec {
    /// The keys that this specification finds. `None` without keys, for instance if the syntax is
    /// wrong, which the server will report.
    #[must_use]
    pub fn span(&self, args: Args) -> Option<Span> {
        let begin = self.begin(args)?;
        let span = match self.find {
            Find::Range { last, step, limit } => {
                let end = args.len() - 1;
                let last = match usize::try_from(last) {
                    Ok(last) => begin + last,
                    Err(_) if limit > 1 => begin + ((end + 1 - begin) / limit).checked_sub(1)?,
                    Err(_) => (end + 1).checked_sub(usize::try_from(-last).ok()?)?,
                };
                Span { first: begin, last, step }
            }
            Find::Count { number, first, step } => {
                if begin + number >= args.len() {
                    return None;
                }
                let count = usize::try_from(parse_i64(args.get(begin + number))?).ok()?;
                let first = begin + first;
                let last = count.checked_sub(1)?.checked_mul(step)?.checked_add(first)?;
                Span { first, last, step }
            }
        };
        if span.first > span.last || span.last >= args.len() {
            return None;
        }
        // The server counts to the last argument; the last key may come before it (MSET).
        let last = span.last - (span.last - span.first) % span.step;
        Some(Span { last, ..span })
    }

    /// The argument with the number of keys, if there is one.
    #[must_use]
    pub fn number_at(&self, args: Args) -> Option<usize> {
        match self.find {
            Find::Count { number, .. } => Some(self.begin(args)? + number),
            Find::Range { .. } => None,
        }
    }

    fn begin(&self, args: Args) -> Option<usize> {
        match &self.begin {
            Begin::Index(index) => (*index < args.len()).then_some(*index),
            Begin::Keyword { word, from } => {
                let is_word = |&index: &usize| args.get(index).eq_ignore_ascii_case(word);
                let found = if let Ok(from) = usize::try_from(*from) {
                    (from..args.len()).find(is_word)
                } else {
                    let back = usize::try_from(-from).ok()?;
                    (1..=args.len().checked_sub(back)?).rev().find(is_word)
                };
                found.map(|index| index + 1).filter(|&index| index < args.len())
            }
        }
    }
}

/// All arguments that are keys.
pub fn all<'a>(specs: &'a [KeySpec], args: Args<'a>) -> impl Iterator<Item = usize> + 'a {
    specs.iter().filter_map(move |spec| spec.span(args)).flat_map(Span::indices)
}

impl Span {
    /// The arguments that are keys.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        (self.first..=self.last).step_by(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{Cut, Limits, Request};

    fn found(spec: &KeySpec, line: &str) -> Vec<String> {
        let mut request = Request::default();
        let line = format!("{line}\n");
        assert!(matches!(request.cut(line.as_bytes(), Limits::NONE), Ok(Cut::Complete(_))));
        let args = request.args(line.as_bytes());
        let text = |index| String::from_utf8_lossy(args.get(index)).into_owned();
        spec.span(args).map(|span| span.indices().map(text).collect()).unwrap_or_default()
    }

    fn range(index: usize, last: i64, step: usize, limit: usize) -> KeySpec {
        KeySpec { begin: Begin::Index(index), find: Find::Range { last, step, limit } }
    }

    #[test]
    fn the_last_key_is_a_key() {
        let mut request = Request::default();
        assert!(matches!(request.cut(b"MSET a 1 b 2\n", Limits::NONE), Ok(Cut::Complete(_))));
        let span = range(1, -1, 2, 0).span(request.args(b"MSET a 1 b 2\n"));
        assert_eq!(span, Some(Span { first: 1, last: 3, step: 2 }));
    }

    #[test]
    fn keys_are_where_the_server_says() {
        assert_eq!(found(&range(1, 0, 1, 0), "GET a"), ["a"]);
        assert_eq!(found(&range(1, -1, 1, 0), "MGET a b c"), ["a", "b", "c"]);
        assert_eq!(found(&range(1, -1, 2, 0), "MSET a 1 b 2"), ["a", "b"]);
        assert_eq!(found(&range(1, -2, 1, 0), "BLPOP a b 0"), ["a", "b"]);
        assert_eq!(found(&range(2, 0, 1, 0), "OBJECT HELP"), [""; 0]);
        let count =
            KeySpec { begin: Begin::Index(1), find: Find::Count { number: 0, first: 1, step: 1 } };
        assert_eq!(found(&count, "ZUNION 2 a b WEIGHTS 1 2"), ["a", "b"]);
        assert_eq!(found(&count, "ZUNION 3 a b"), [""; 0]);
        assert_eq!(found(&count, "ZUNION 0 a b"), [""; 0]);
        assert_eq!(found(&count, "ZUNION 9223372036854775807 a b"), [""; 0]);
        let streams = KeySpec {
            begin: Begin::Keyword { word: b"STREAMS".to_vec(), from: 1 },
            find: Find::Range { last: -1, step: 1, limit: 2 },
        };
        assert_eq!(found(&streams, "XREAD COUNT 1 streams a b 0 0"), ["a", "b"]);
        assert_eq!(found(&streams, "XREAD COUNT 1 streams"), [""; 0]);
        let keyword = KeySpec {
            begin: Begin::Keyword { word: b"KEYS".to_vec(), from: -2 },
            find: Find::Range { last: -1, step: 1, limit: 0 },
        };
        assert_eq!(found(&keyword, "MIGRATE h 1 \"\" 0 5 KEYS a b"), ["a", "b"]);
    }
}
