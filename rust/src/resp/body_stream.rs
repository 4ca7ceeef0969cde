//! The rest of a command that is forwarded while it is still arriving. Its framing is checked as
//! strictly as that of whole commands.

use crate::resp::request::{ProtocolError, REQUEST_LIMIT, bulk_header};

/// The bytes of one read from a client that uploads: as many as a lane's socket takes at once.
pub(crate) const CHUNK: usize = 256 * 1024;

/// The rest of a command.
#[derive(Debug)]
pub(crate) struct BodyStream {
    /// The number of arguments still to come, including the current one.
    args: usize,
    /// The bytes of the current argument still to come; `None` before its length is known.
    text: Option<usize>,
    /// The bytes of the whole command, as far as its lengths are known.
    length: usize,
}

impl BodyStream {
    /// `args` arguments, where only the length of the first one has come; `length` bytes up to its
    /// end.
    pub(crate) fn new(args: usize, text: usize, length: usize) -> Self {
        Self { args, text: Some(text), length }
    }

    /// Passes over bytes of the command. Returns how many may be forwarded, and whether only the
    /// last two bytes of the command follow.
    pub(crate) fn pass(
        &mut self,
        bytes: &[u8],
        argument_limit: usize,
    ) -> Result<(usize, bool), ProtocolError> {
        let mut at = 0;
        loop {
            let Some(text) = self.text else {
                let Some((length, start)) = bulk_header(bytes, at, argument_limit)? else {
                    return Ok((at, false));
                };
                self.length += start - at + length + 2;
                if self.length > REQUEST_LIMIT {
                    return Err("command longer than 1 GB".into());
                }
                self.text = Some(length);
                at = start;
                continue;
            };
            let here = text.min(bytes.len() - at);
            at += here;
            self.text = Some(text - here);
            match bytes.get(at..at + 2) {
                None => return Ok((at, false)), // also in the middle of the text
                Some(b"\r\n") => {}
                Some(_) => return Err("invalid CRLF in request".into()),
            }
            if self.args == 1 {
                return Ok((at, true));
            }
            self.args -= 1;
            self.text = None;
            at += 2;
        }
    }

    /// The most bytes of the next read. Not more than the command needs, because further ones would
    /// have to be kept.
    pub(crate) fn most(&self) -> usize {
        match self.text {
            Some(text) if self.args == 1 => CHUNK.min(text + 2),
            _ => CHUNK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENT_LIMIT: usize = 512 * 1024 * 1024;

    /// Passes `bytes` in two pieces. Returns everything forwarded, and the rest.
    fn pass_in_two(bytes: &[u8], cut: usize) -> Result<(Vec<u8>, bool), ProtocolError> {
        let mut rest = BodyStream { args: 3, text: Some(5), length: 0 };
        let (first, is_end) = rest.pass(&bytes[..cut], ARGUMENT_LIMIT)?;
        if is_end {
            return Ok((bytes[..first].to_vec(), true));
        }
        let (second, is_end) = rest.pass(&bytes[first..], ARGUMENT_LIMIT)?;
        Ok((bytes[..first + second].to_vec(), is_end))
    }

    #[test]
    fn all_but_the_last_two_bytes_pass_however_they_come() {
        let command = b"hello\r\n$0\r\n\r\n$12\r\n\r\n$3\r\nabc\r\n1\r\n";
        let all = command.len() - 2;
        for cut in 0..=command.len() {
            let passed = pass_in_two(command, cut);
            assert_eq!(passed, Ok((command[..all].to_vec(), true)), "{cut}");
        }
        let pipeline = [command.as_slice(), b"*1\r\n$4\r\nPING\r\n"].concat();
        for cut in 0..=pipeline.len() {
            assert_eq!(pass_in_two(&pipeline, cut), Ok((command[..all].to_vec(), true)), "{cut}");
        }
    }

    #[test]
    fn what_is_not_canonical_does_not_pass() {
        for (bytes, error) in [
            (b"hello\rx".as_slice(), "invalid CRLF in request"),
            (b"helloworld", "invalid CRLF in request"),
            (b"hello\r\n:1\r\n", "expected '$', got ':'"),
            (b"hello\r\n$01\r\n", "invalid bulk length"),
            (b"hello\r\n$-1\r\n", "invalid bulk length"),
            (b"hello\r\n$536870913\r\n", "invalid bulk length"),
            (b"hello\r\n$1\r\nab\r", "invalid CRLF in request"),
        ] {
            for cut in 0..=bytes.len() {
                assert_eq!(pass_in_two(bytes, cut), Err(error.into()), "{error} {cut}");
            }
        }
    }

    #[test]
    fn lengths_add_up_to_the_limit_of_a_command() {
        let mut rest = BodyStream { args: 3, text: None, length: REQUEST_LIMIT / 2 };
        let header = format!("${}\r\n", REQUEST_LIMIT / 2);
        assert!(rest.pass(header.as_bytes(), REQUEST_LIMIT).is_err());
    }

    #[test]
    fn no_more_is_read_than_is_needed() {
        let most = |args, text| BodyStream { args, text, length: 0 }.most();
        assert_eq!(most(1, Some(10)), 12);
        assert_eq!(most(1, Some(0)), 2);
        assert_eq!(most(1, Some(CHUNK)), CHUNK);
        assert_eq!(most(2, Some(0)), CHUNK);
        assert_eq!(most(1, None), CHUNK);
    }
}
