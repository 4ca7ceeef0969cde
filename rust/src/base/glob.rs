//! Glob patterns, matched exactly as in Redis (`stringmatchlen`), oddities included.

/// A `*` nested deeper than this matches nothing, as in Valkey; no recursion goes deeper.
const NESTING_LIMIT: usize = 1000;

/// True if the whole text matches the pattern: `*`, `?`, `[a-c]`, `[^a]`, `\` before a character.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Glob { gave_up: false }.matches(pattern, text, 0)
}

struct Glob {
    /// The rest after the last `*` matched nowhere, so an earlier `*` need not try longer texts.
    gave_up: bool,
}

impl Glob {
    fn matches(&mut self, mut pattern: &[u8], mut text: &[u8], nesting: usize) -> bool {
        if nesting > NESTING_LIMIT {
            return false;
        }
        while let ([first, rest @ ..], [at, ..]) = (pattern, text) {
            match first {
                b'*' => return self.star(pattern, text, nesting),
                b'?' => pattern = rest,
                b'[' => {
                    let (is_in, behind) = class(rest, *at);
                    if !is_in {
                        return false;
                    }
                    pattern = behind;
                }
                b'\\' if !rest.is_empty() => {
                    if rest[0] != *at {
                        return false;
                    }
                    pattern = &rest[1..];
                }
                literal => {
                    if literal != at {
                        return false;
                    }
                    pattern = rest;
                }
            }
            text = &text[1..];
            if text.is_empty() {
                pattern = without_stars(pattern);
            }
        }
        pattern.is_empty() && text.is_empty()
    }

    fn star(&mut self, pattern: &[u8], mut text: &[u8], nesting: usize) -> bool {
        let rest = without_stars(pattern);
        if rest.is_empty() {
            return true;
        }
        while !text.is_empty() {
            if self.matches(rest, text, nesting + 1) {
                return true;
            }
            if self.gave_up {
                return false;
            }
            text = &text[1..];
        }
        self.gave_up = true;
        false
    }
}

fn without_stars(pattern: &[u8]) -> &[u8] {
    let stars = pattern.iter().take_while(|&&byte| byte == b'*').count();
    &pattern[stars..]
}

/// True if a byte is in the class whose text follows a `[`; and the rest of the pattern. A class
/// without an end extends to the end of the pattern.
fn class(mut pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let is_negated = pattern.first() == Some(&b'^');
    if is_negated {
        pattern = &pattern[1..];
    }
    let mut found = false;
    loop {
        pattern = match pattern {
            [] => break,
            [b'\\', escaped, rest @ ..] => {
                found |= *escaped == byte;
                rest
            }
            [b']', rest @ ..] => {
                pattern = rest;
                break;
            }
            [start, b'-', end, rest @ ..] => {
                found |= (*start.min(end)..=*start.max(end)).contains(&byte);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == byte;
                rest
            }
        };
    }
    (found != is_negated, pattern)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn as_redis_matches() {
        for (pattern, text, expected) in [
            ("*", "", false), // Redis never calls this: an empty text only matches an empty pattern
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a**", "a", true),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a\\]]", "]", true),
            ("[ab", "b", true),
            ("[", "b", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("", "", true),
            ("", "a", false),
            ("news.*", "news.art", true),
            ("h[a", "ha", true),
            ("*.*.x", "a.b.c", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern:?} {text:?}"
            );
        }
    }
}
