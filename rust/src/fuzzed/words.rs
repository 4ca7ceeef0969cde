//! Words of a command, and patterns.

use super::{is_one_reply, numbers, words};
use crate::base::glob::matches;
use crate::catalog::select::selected;
use crate::resp::error_text::{unknown_command, unknown_subcommand};
use crate::resp::inline::{Dialect, split};
use crate::resp::reply::push_error;
use crate::resp::request::{push_command, with_args};

/// Nothing that a client names breaks the line of an error: words.
pub(super) fn error_text(data: &[u8]) {
    let words = words(data);
    let mut raw = Vec::new();
    push_command(&mut raw, words.iter().copied());
    with_args(&raw, |args| {
        let mut texts = vec![unknown_command(args)];
        if args.len() > 1 {
            texts.push(unknown_subcommand(b"client", args));
        }
        for text in texts {
            assert!(!text.contains(&0), "C's strings end there");
            let mut reply = Vec::new();
            push_error(&mut reply, &text);
            assert!(is_one_reply(&reply));
            assert!(reply.len() < 1024, "it is bounded");
        }
    });
}

/// A line without quotes is split at its blanks; whatever a line has, quoted again it has the same words.
/// The dialect, and the line.
pub(super) fn inline(data: &[u8]) {
    let Some(([dialect], line)) = numbers(data) else { return };
    let dialect = if dialect % 2 == 0 { Dialect::Redis } else { Dialect::Valkey };
    let found = split(line, dialect);
    if !line.iter().any(|byte| b"\"'".contains(byte)) {
        let is_blank = |byte: &u8| b" \t\r\n".contains(byte);
        let plain = line.split(is_blank).map(<[u8]>::to_vec).filter(|word| !word.is_empty());
        if !line.iter().any(|byte| b"\x0b\x0c".contains(byte)) {
            assert_eq!(found, Some(plain.collect::<Vec<_>>()));
        }
    }
    let Some(found) = found else { return };
    let mut quoted = Vec::new();
    for word in &found {
        quoted.push(b'"');
        for byte in word {
            quoted.extend_from_slice(format!("\\x{byte:02X}").as_bytes());
        }
        quoted.extend_from_slice(b"\" ");
    }
    assert_eq!(split(&quoted, dialect), Some(found));
}

/// SELECT names a database that there is, or none: how many there are, and the words.
pub(super) fn select(data: &[u8]) {
    let Some(([databases], text)) = numbers(data) else { return };
    let databases = u32::try_from(databases).unwrap_or(1);
    let mut raw = Vec::new();
    push_command(&mut raw, words(text).into_iter());
    with_args(&raw, |args| {
        if args.len() < 2 {
            return;
        }
        let found = selected(args, databases);
        let meant = std::str::from_utf8(args.get(1)).ok().and_then(|text| text.parse::<i64>().ok());
        match found {
            Ok(db) => assert!(db < databases && meant == Some(i64::from(db))),
            Err(why) => assert!(why.starts_with("ERR ")),
        }
    });
}

/// A pattern matches what a slower matcher says: the pattern, and the text.
pub(super) fn glob(data: &[u8]) {
    let words = words(data);
    let [pattern, text] = words[..] else { return };
    if pattern.len() + text.len() < 500 {
        assert_eq!(matches(pattern, text), is_matched(pattern, text));
    }
}

/// One sign of a pattern.
enum Sign {
    Star,
    /// The bytes it stands for.
    Class(Vec<u8>),
}

/// All ways at once: which beginnings of the text the signs so far match.
fn is_matched(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty(); // the server looks at no pattern then
    }
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for sign in signs(pattern) {
        match sign {
            Sign::Star => {
                let first = ends.iter().position(|&end| end).unwrap_or(ends.len());
                ends[first..].fill(true);
            }
            Sign::Class(bytes) => {
                for at in (0..text.len()).rev() {
                    ends[at + 1] = ends[at] && bytes.contains(&text[at]);
                }
                ends[0] = false;
            }
        }
    }
    ends[text.len()]
}

fn signs(mut pattern: &[u8]) -> Vec<Sign> {
    let mut signs = Vec::new();
    while let [first, rest @ ..] = pattern {
        pattern = rest;
        signs.push(match (first, rest) {
            (b'*', _) => Sign::Star,
            (b'?', _) => Sign::Class((0..=255).collect()),
            (b'\\', [escaped, rest @ ..]) => {
                pattern = rest;
                Sign::Class(vec![*escaped])
            }
            (b'[', _) => {
                let (class, behind) = class(rest);
                pattern = behind;
                Sign::Class(class)
            }
            (literal, _) => Sign::Class(vec![*literal]),
        });
    }
    signs
}

fn class(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let (is_negated, mut at) = (text.first() == Some(&b'^'), 0);
    at += usize::from(is_negated);
    let mut listed = Vec::new();
    while at < text.len() && text[at] != b']' {
        if text[at] == b'\\' && at + 1 < text.len() {
            listed.push(text[at + 1]);
            at += 2;
        } else if at + 2 < text.len() && text[at + 1] == b'-' {
            let (a, b) = (text[at], text[at + 2]);
            listed.extend(a.min(b)..=a.max(b));
            at += 3;
        } else {
            listed.push(text[at]);
            at += 1;
        }
    }
    let bytes = (0..=255).filter(|byte| listed.contains(byte) != is_negated).collect();
    (bytes, &text[text.len().min(at + 1)..])
}
