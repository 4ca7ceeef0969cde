//! Replies of scripts, who may have written anything.

use super::is_one_reply;
use crate::lane::script_fences::{Fences, Means, Outcome};
use crate::resp::request::{push_command, with_args};

/// 32 hexadecimal digits, as in the corpus.
const NONCE: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

/// A stream with one script's block is cut at the same place whatever the pieces, and what the client
/// gets is one reply: the size of a piece, and the stream.
pub(super) fn fences(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let whole = cut(stream, stream.len().max(1));
    assert_eq!(cut(stream, usize::from(size) + 1), whole);
    let Ok(Some((length, outcome))) = whole else { return };
    assert!(length <= stream.len());
    let told = match &outcome {
        Outcome::Reply(range) | Outcome::NotRun(range) | Outcome::Strayed(range) => {
            assert!(range.end <= length);
            &stream[range.clone()]
        }
        Outcome::Malformed(told) => told,
    };
    // A line may have any byte but the two of its end.
    if !matches!(told.first(), Some(b'-' | b'+')) {
        assert!(is_one_reply(told), "{}", told.escape_ascii());
    }
    assert!(told.ends_with(b"\r\n"));
}

fn cut(stream: &[u8], size: usize) -> Result<Option<(usize, Outcome)>, &'static str> {
    let mut fences = Fences::new("x".into());
    let mut command = Vec::new();
    push_command(&mut command, [&b"EVAL"[..], b"return 0", b"1", b"k"].into_iter());
    let means = Means { rules: &[], password: b"pw", nonce: NONCE };
    with_args(&command, |args| {
        fences.push(&mut Vec::new(), b"return 0"[..].into(), args, &[b"~k".to_vec()], &means, 0);
    });
    let mut end = 0;
    while end < stream.len() {
        end = stream.len().min(end + size);
        if let Some(block) = fences.cut(&stream[..end], 0).map_err(|broken| broken.0)? {
            return Ok(Some((block.length, block.outcome)));
        }
    }
    Ok(None)
}
