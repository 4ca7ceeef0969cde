//! Streams, whole and in pieces.

use super::numbers;
use crate::resp::body_stream::BodyStream;
use crate::resp::request::{Cut, Limits, Request};

#[allow(dead_code, unreachable_pub, reason = "also part of a test")]
#[path = "../../tests/pieces/cutting.rs"]
mod cutting;

/// A client's stream, whole and in pieces, is cut into the same commands. The first byte says how many of
/// the next are the sizes of the pieces.
pub(super) fn request(data: &[u8]) {
    let Some((&head, rest)) = data.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(head & 7)) else { return };
    for is_known in [true, false] {
        let whole = cutting::commands(stream, &[], is_known, false);
        assert_eq!(cutting::commands(stream, sizes, is_known, head & 8 != 0), whole);
    }
    cutting::check_canonical(stream);
}

/// An instance's stream, whole, in pieces and passed on early, is cut into the same replies. The first
/// bytes are as those of `request`.
pub(super) fn reply(data: &[u8]) {
    let Some((&head, rest)) = data.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(head & 7)) else { return };
    let whole = cutting::replies(stream, &[]);
    assert_eq!(cutting::replies(stream, sizes), whole);
    assert_eq!(cutting::streamed(stream, sizes), whole.0.iter().sum::<usize>());
}

/// What is still to come of a command has the framing of a whole one, and ends where that ends, in
/// pieces, too: the number of arguments, the length of the first, the size of a piece, and the bytes.
pub(super) fn rest(data: &[u8]) {
    let Some(([args, text, size], stream)) = numbers(data) else { return };
    let (args, text, size) = (args % 9 + 1, text % 64, size + 1);
    let head = format!("*{args}\r\n${text}\r\n");
    let mut command = head.clone().into_bytes();
    command.extend_from_slice(stream);
    let mut request = Request::default();
    let expected = request.cut(&command, Limits::NONE);
    let whole = passed(stream, args, text, head.len(), usize::MAX);
    match whole {
        // Only the end of the line is missing, and it is known to come.
        Ok((at, true)) => assert_eq!(expected, Ok(Cut::Complete(head.len() + at + 2))),
        Ok((at, false)) => {
            assert!(at <= stream.len());
            assert_eq!(expected, Ok(Cut::Incomplete));
        }
        Err(ref why) => assert_eq!(expected.as_ref(), Err(why)),
    }
    assert_eq!(passed(stream, args, text, head.len(), size), whole);
}

/// How many bytes were passed on, and whether the command ends behind them.
fn passed(
    stream: &[u8],
    args: usize,
    text: usize,
    head: usize,
    size: usize,
) -> Result<(usize, bool), Vec<u8>> {
    let mut rest = BodyStream::new(args, text, head + text + 2);
    let (mut at, mut end) = (0, 0);
    while end < stream.len() {
        end = stream.len().min(end.saturating_add(size));
        let (taken, is_over) = rest.pass(&stream[at..end], Limits::NONE.argument)?;
        assert!(taken <= end - at, "only what is there is passed on");
        assert!(rest.most() > 0, "there is more to read");
        at += taken;
        if is_over {
            return Ok((at, true));
        }
    }
    Ok((at, false))
}
