//! A client of the worker, in raw bytes.

use _core::resp::request::push_command;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A client.
pub struct Connection {
    pub stream: UnixStream,
}

impl Connection {
    pub fn send(&mut self, args: &[&[u8]]) {
        let mut out = Vec::new();
        push_command(&mut out, args.iter().copied());
        self.send_bytes(&out);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the worker reads");
    }

    /// Exactly these bytes come next.
    pub fn expect(&mut self, bytes: &[u8], what: &str) {
        let mut found = vec![0; bytes.len()];
        let mut at = 0;
        while at < found.len() {
            match self.stream.read(&mut found[at..]) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) => panic!("{what}: {error} after {}", found[..at].escape_ascii()),
            }
            if found[..at] != bytes[..at] {
                break;
            }
        }
        let (found, bytes) = (found[..at].escape_ascii(), bytes.escape_ascii());
        assert_eq!(found.to_string(), bytes.to_string(), "{what}");
    }

    /// Sends as often as the worker takes it within a second; how often that was.
    pub fn send_often(&mut self, args: &[&[u8]], times: usize) -> usize {
        let mut out = Vec::new();
        push_command(&mut out, args.iter().copied());
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
        (0..times).take_while(|_| self.stream.write_all(&out).is_ok()).count()
    }

    /// What comes before the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the stream has an end");
        }
        rest
    }
}
