//! What the fuzz targets (`rust/fuzz`) do with their bytes; here, so that `cargo test` does it, too.
//!
//! Each target states what holds for every input of a parser. Its corpus is in `rust/fuzz/corpus`: text, in
//! which `|` stands between two words, and `&` between two replies.

mod framing;
mod keyed;
mod merged;
mod scripts;
#[cfg(test)]
mod tests;
mod words;

/// A target: its name, and what it does with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("error_text", words::error_text),
    ("fences", scripts::fences),
    ("glob", words::glob),
    ("inline", words::inline),
    ("keys", keyed::keys),
    ("merge", merged::merge),
    ("placement", keyed::placement),
    ("reply", framing::reply),
    ("request", framing::request),
    ("rest", framing::rest),
    ("scan", merged::scan),
    ("select", words::select),
];

/// Runs a target.
///
/// # Panics
/// If there is none of that name, or what it states does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(one, _)| *one == name).expect("a target");
    target(data);
}

/// Numbers that come first, one a byte; then the text. Digits count as what they show, so that a
/// corpus can be read.
fn numbers<const N: usize>(data: &[u8]) -> Option<([usize; N], &[u8])> {
    let (numbers, rest) = data.split_first_chunk::<N>()?;
    Some((numbers.map(|byte| usize::from(byte.wrapping_sub(b'0'))), rest))
}

/// Words with `|` between them.
fn words(text: &[u8]) -> Vec<&[u8]> {
    text.split(|&byte| byte == b'|').collect()
}

/// True for the bytes of exactly one reply.
fn is_one_reply(bytes: &[u8]) -> bool {
    !bytes.is_empty() && crate::resp::reply::Cutter::default().cut(bytes) == Ok(Some(bytes.len()))
}
