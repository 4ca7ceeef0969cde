//! Splits an inline command line into arguments, as Redis's `sdssplitargs`.

/// The arguments of `line`, unquoted; `None` when quotes do not balance.
///
/// Unlike Redis, a NUL byte is an ordinary byte: Redis stops scanning there and the connection
/// hangs.
#[must_use]
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = skip_spaces(rest);
        if rest.is_empty() {
            return Some(args);
        }
        let (arg, after) = one(rest)?;
        args.push(arg);
        rest = after;
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    text
}

/// One argument and what follows it. A quote may open in the middle of a word, as in Redis.
fn one(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut arg = Vec::new();
    loop {
        match text {
            [] => return Some((arg, text)),
            [space, rest @ ..] if is_space(*space) => return Some((arg, rest)),
            [b'"', rest @ ..] => return finish(arg, rest, double_quoted),
            [b'\'', rest @ ..] => return finish(arg, rest, single_quoted),
            [byte, rest @ ..] => {
                arg.push(*byte);
                text = rest;
            }
        }
    }
}

type Quoted = fn(&mut Vec<u8>, &[u8]) -> Option<usize>;

/// Reads to the closing quote, which must be followed by a space or the end.
fn finish(mut arg: Vec<u8>, text: &[u8], quoted: Quoted) -> Option<(Vec<u8>, &[u8])> {
    let used = quoted(&mut arg, text)?;
    match text.get(used) {
        None => Some((arg, &[])),
        Some(&next) if is_space(next) => Some((arg, &text[used..])),
        Some(_) => None,
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
    use super::split;

    type Words = Option<&'static [&'static [u8]]>;

    #[test]
    fn splits_as_redis_does() {
        let cases: [(&[u8], Words); 11] = [
            (b"", Some(&[])),
            (b"  \t ", Some(&[])),
            (b"set k v", Some(&[b"set", b"k", b"v"])),
            (b"set  \"a b\"\t'c d'", Some(&[b"set", b"a b", b"c d"])),
            (br#""\x00\xff\n\\\"" "#, Some(&[b"\x00\xff\n\\\""])),
            (br"'\'\n'", Some(&[b"'\\n"])),
            (br#"ab"cd""#, Some(&[b"abcd"])),
            (br#""a"b"#, None),
            (br#""a"#, None),
            (br#""x\x4"#, None),
            (b"get a\0b", Some(&[b"get", b"a\0b"])),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|words| words.iter().map(|w| w.to_vec()).collect());
            assert_eq!(split(line), expected, "{line:?}");
        }
    }
}
