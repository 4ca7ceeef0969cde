//! Commands as bytes: for an instance, to be kept, and split into arguments.

use crate::resp::request::{Args, push_command, with_args};

pub(crate) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

pub(crate) const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Appends a command as an instance may get it: newly framed if it came inline, otherwise as it
/// came, which is canonical because the parser accepts nothing else.
pub(crate) fn push_args(out: &mut Vec<u8>, args: Args) {
    if args.is_inline() {
        push_command(out, args.iter());
    } else {
        out.extend_from_slice(args.raw);
    }
}

/// The same in a buffer of its own, to be kept.
pub(crate) fn canonical(args: Args) -> Vec<u8> {
    let mut command = Vec::with_capacity(args.raw.len());
    push_args(&mut command, args);
    command
}

/// The arguments of one command, for the coordinator.
pub(crate) fn words(command: &[u8]) -> Vec<Vec<u8>> {
    with_args(command, |args| args.iter().map(<[u8]>::to_vec).collect()).unwrap_or_default()
}
