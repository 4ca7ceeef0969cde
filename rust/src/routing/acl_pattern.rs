//! An ACL pattern that matches one key and nothing else.

/// Bytes that a key pattern cannot contain, or only in a class along with others.
const AWKWARD: &[u8] = b"\0 \t\n\x0b\x0c\r";

/// The rule that allows exactly this key; `None` if there is no such pattern.
pub(crate) fn rule(key: &[u8]) -> Option<Vec<u8>> {
    let mut rule = b"~".to_vec();
    escape(key, &mut rule)?;
    (rule.len() > 1).then_some(rule)
}

/// Appends the pattern of a text to a rule; `None` if there is none.
pub(crate) fn escape(text: &[u8], rule: &mut Vec<u8>) -> Option<()> {
    for &byte in text {
        if AWKWARD.contains(&byte) {
            return None;
        }
        if b"\\*?[]^-".contains(&byte) {
            rule.push(b'\\');
        }
        rule.push(byte);
    }
    Some(())
}
