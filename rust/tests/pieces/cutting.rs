//! Whatever the pieces a stream comes in, it is cut into the same commands, or replies: for
//! proptest here, and for the fuzz targets (`rust/fuzz`), which include this file.

use _core::resp::reply::Cutter;
use _core::resp::request::{Cut, Limits, Request, push_command};

/// A command, and whether it came inline; or the protocol error that ends the stream.
type Command = Result<(Vec<Vec<u8>>, bool), Vec<u8>>;

/// Cuts a stream as a worker does that reads it piece by piece: `sizes`, over and over.
/// `keeps` says whether a half-read command keeps its place.
pub fn commands(stream: &[u8], sizes: &[u8], is_known: bool, keeps: bool) -> Vec<Command> {
    let limits = Limits { is_authenticated: is_known, ..Limits::NONE };
    let (mut found, mut request, mut start) = (Vec::new(), Request::default(), 0);
    for end in ends(stream.len(), sizes) {
        loop {
            match request.cut(&stream[start..end], limits) {
                Ok(Cut::Complete(length)) => {
                    assert!(0 < length && length <= end - start, "cut within the bytes");
                    let raw = &stream[start..start + length];
                    let args = request.args(raw);
                    found.push(Ok((args.iter().map(<[u8]>::to_vec).collect(), args.is_inline())));
                    request.reset();
                    start += length;
                }
                Ok(Cut::Incomplete) => break,
                Err(error) => {
                    found.push(Err(error));
                    return found;
                }
            }
        }
        if !(keeps && request.is_partial()) {
            request.reset();
        }
    }
    found
}

/// A multibulk command that was taken is sent on as it came: it must be canonical.
pub fn check_canonical(stream: &[u8]) {
    let (mut request, mut start) = (Request::default(), 0);
    while let Ok(Cut::Complete(length)) = request.cut(&stream[start..], Limits::NONE) {
        let raw = &stream[start..start + length];
        let args = request.args(raw);
        if !args.is_empty() && !args.is_inline() {
            let mut written = Vec::new();
            push_command(&mut written, args.iter());
            assert_eq!(written, raw);
        }
        request.reset();
        start += length;
    }
}

/// Lengths of the replies in a stream, and whether it ended in something else.
pub fn replies(stream: &[u8], sizes: &[u8]) -> (Vec<usize>, bool) {
    let (mut found, mut cutter, mut start) = (Vec::new(), Cutter::default(), 0);
    for end in ends(stream.len(), sizes) {
        while start < end {
            match cutter.cut(&stream[start..end]) {
                Ok(Some(length)) => {
                    assert!(0 < length && length <= end - start, "cut within the bytes");
                    found.push(length);
                    start += length;
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// The same, handing on the beginning of unfinished replies as a worker does with large ones;
/// the bytes handed on, of whole replies only.
pub fn streamed(stream: &[u8], sizes: &[u8]) -> usize {
    let (mut cutter, mut start, mut whole, mut partial) = (Cutter::default(), 0, 0, 0);
    for end in ends(stream.len(), sizes) {
        while start < end {
            match cutter.cut(&stream[start..end]) {
                Ok(Some(length)) => {
                    whole += partial + length;
                    partial = 0;
                    start += length;
                }
                Ok(None) => {
                    let passed = cutter.passed();
                    assert!(passed <= end - start, "only what is there is handed on");
                    cutter.forget_passed();
                    partial += passed;
                    start += passed;
                    break;
                }
                Err(_) => return whole,
            }
        }
    }
    whole
}

/// Where the pieces end.
fn ends(length: usize, sizes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle().take(length * usize::from(!sizes.is_empty())) {
        at += usize::from(*size) + 1;
        if at >= length {
            break;
        }
        ends.push(at);
    }
    ends.push(length);
    ends
}
