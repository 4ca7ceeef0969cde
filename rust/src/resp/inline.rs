//! Splits the line of an inline command into arguments, like the server's `sdssplitargs`.

/// The server whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Redis: a closing quote ends the argument.
    #[default]
    Redis,
    /// Valkey: adjacent parts form one argument, as in a shell.
    Valkey,
}

impl Dialect {
    /// The most bytes of a line, without its end, that are accepted if they come at once. Redis
    /// searches for the end of a line after each further 16 KB that it reads, and gives up above 64
    /// KB. Valkey gives up after 64 KB.
    #[must_use]
    pub fn line_limit(self) -> usize {
        match self {
            Self::Redis => 5 * 16 * 1024 - 1,
            Self::Valkey => 64 * 1024,
        }
    }
}

/// The arguments of `line`, unquoted; `None` if quotes do not balance.
///
/// 0xff is an ordinary byte, although Valkey drops it. A NUL byte never gets here: after one, the
/// servers find no end of a line, and neither does this parser.
#[must_use]
pub fn split(line: &[u8], dialect: Dialect) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = skip_spaces(rest);
        if rest.is_empty() {
            return Some(args);
        }
        let (arg, after) = one(rest, dialect)?;
        args.push(arg);
        rest = after;
    }
}

/// True for a byte that may separate two arguments.
fn is_space(byte: u8) -> bool {
    ends_word(byte) || matches!(byte, 0x0b | 0x0c)
}

/// True for a byte that cannot be in an argument without quotes.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    text
}

/// One argument, and what follows it. A quote may open in the middle of an argument.
fn one(mut text: &[u8], dialect: Dialect) -> Option<(Vec<u8>, &[u8])> {
    let mut arg = Vec::new();
    loop {
        let used = match text {
            [] => return Some((arg, text)),
            [space, rest @ ..] if ends_word(*space) => return Some((arg, rest)),
            [b'"', rest @ ..] => 1 + double_quoted(&mut arg, rest)?,
            [b'\'', rest @ ..] => 1 + single_quoted(&mut arg, rest)?,
            [byte, rest @ ..] => {
                arg.push(*byte);
                text = rest;
                continue;
            }
        };
        text = &text[used..];
        if dialect == Dialect::Redis {
            return text.first().is_none_or(|&next| is_space(next)).then_some((arg, text));
        }
    }
}

fn double_quoted(arg: &mut Vec<u8>, text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match &text[at..] {
            [] => return None,
            [b'"', ..] => return Some(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                arg.push(hex(*high) << 4 | hex(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                at += 2;
            }
            [byte, ..] => {
                arg.push(*byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(arg: &mut Vec<u8>, text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match &text[at..] {
            [] => return None,
            [b'\'', ..] => return Some(at + 1),
            [b'\\', b'\'', ..] => {
                arg.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                arg.push(*byte);
                at += 1;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, split};

    type Words = Option<&'static [&'static [u8]]>;

    fn check(dialect: Dialect, cases: &[(&[u8], Words)]) {
        for (line, expected) in cases {
            let expected = expected.map(|words| words.iter().map(|w| w.to_vec()).collect());
            assert_eq!(split(line, dialect), expected, "{line:?}");
        }
    }

    #[test]
    fn splits_as_servers_do() {
        for dialect in [Dialect::Redis, Dialect::Valkey] {
            check(
                dialect,
                &[
                    (b"", Some(&[])),
                    (b"  \t ", Some(&[])),
                    (b"set k v", Some(&[b"set", b"k", b"v"])),
                    (b"set  \"a b\"\t'c d'", Some(&[b"set", b"a b", b"c d"])),
                    (br#""\x00\xff\n\\\"" "#, Some(&[b"\x00\xff\n\\\""])),
                    (br"'\'\n'", Some(&[b"'\\n"])),
                    (br#"ab"cd""#, Some(&[b"abcd"])),
                    (br#""a"#, None),
                    (br#""x\x4"#, None),
                    (b"get a\0b", Some(&[b"get", b"a\0b"])),
                ],
            );
        }
    }

    #[test]
    fn what_follows_a_quote_is_an_error_or_of_the_same_word() {
        let lines: [(&[u8], Words); 5] = [
            (br#""a"b"#, Some(&[b"ab"])),
            (br#"a"b"c d"#, Some(&[b"abc", b"d"])),
            (br#"'a'"b"'c'"#, Some(&[b"abc"])),
            (br#"""''a"#, Some(&[b"a"])),
            (br#""a"'b"#, None),
        ];
        check(Dialect::Valkey, &lines);
        check(Dialect::Redis, &lines.map(|(line, _)| (line, None)));
    }
}
