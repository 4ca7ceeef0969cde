//! The errors of servers for unknown commands, literally.

use crate::resp::request::Args;

/// Redis's text: at most 128 bytes of the name, and about 128 of arguments.
pub(crate) fn unknown_command(args: Args) -> Vec<u8> {
    let mut message = b"ERR unknown command '".to_vec();
    message.extend_from_slice(printable(args.get(0), 128));
    message.extend_from_slice(b"', with args beginning with: ");
    let mut shown = 0;
    for arg in args.iter().skip(1) {
        if shown >= 128 {
            break;
        }
        let arg = printable(arg, 128 - shown);
        message.push(b'\'');
        message.extend_from_slice(arg);
        message.extend_from_slice(b"' ");
        shown += arg.len() + 3;
    }
    message
}

/// The same for an unknown subcommand of a known command.
pub(crate) fn unknown_subcommand(parent: &[u8], args: Args) -> Vec<u8> {
    let parent = parent.to_ascii_uppercase();
    [b"ERR unknown subcommand '", printable(args.get(1), 128), b"'. Try ", &parent, b" HELP."]
        .concat()
}

/// The text that C's `%.*s` would print.
pub(crate) fn printable(text: &[u8], most: usize) -> &[u8] {
    let text = &text[..text.len().min(most)];
    memchr::memchr(0, text).map_or(text, |nul| &text[..nul])
}
