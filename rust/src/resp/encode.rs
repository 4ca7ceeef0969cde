//! Commands as bytes: as an instance may see them, to be kept, and apart again.

use crate::resp::request::{Args, push_command, with_args};

pub(crate) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

pub(crate) const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// A command as an instance may see it: our own framing if it came inline, else as it came,
/// which is canonical because the parser takes nothing else.
pub(crate) fn push_args(out: &mut Vec<u8>, args: Args) {
    if args.is_inline() {
        push_command(out, args.iter());
    } else {
        out.extend_from_slice(args.raw);
    }
}

/// The same on its own, to be kept.
pub(crate) fn canonical(args: Args) -> Vec<u8> {
    let mut command = Vec::with_capacity(args.raw.len());
    push_args(&mut command, args);
    command
}

/// The words of one command, for the coordinator.
pub(crate) fn words(command: &[u8]) -> Vec<Vec<u8>> {
    with_args(command, |args| args.iter().map(<[u8]>::to_vec).collect()).unwrap_or_default()
}
