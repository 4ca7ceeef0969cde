//! One connection of a client: what it has sent, and the replies that it is owed.
//!
//! ```text
//!   out:   | batch being written ........ |        one write(2) a batch
//!                   ^ written
//!   owed:  | k1 | k2 | k3 | k4 |                   in the order sent; replies must come so
//!                   ^ settled
//!   tail:  | $16\r\nabc |                          the reply that the last read cut in two
//! ```

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::config::Address;
use super::reply::{Malformed, Reply, cut};
use super::request::Expected;
use super::tally::LoadReport;

const READ: usize = 64 * 1024; // bytes a read(2)
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5); // also for the reply to AUTH

/// A connection to one node.
#[derive(Debug)]
pub struct Link {
    /// The socket.
    pub socket: OwnedFd,
    /// Whether the loop must report when the socket takes more.
    pub waits_to_write: bool,
    /// The bytes of the batch.
    pub out: Vec<u8>,
    /// The replies that the batch is owed, key by key.
    pub owed: Vec<Expected>,
    /// The number of them that have come.
    pub settled: usize,
    written: usize,
    tail: Vec<u8>,
}

impl Link {
    /// A link on a connected, non-blocking socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            waits_to_write: false,
            out: Vec::new(),
            owed: Vec::new(),
            settled: 0,
            written: 0,
            tail: Vec::new(),
        }
    }

    /// Prepares for the next batch; only if nothing is outstanding.
    pub fn clear(&mut self) {
        self.out.clear();
        self.owed.clear();
        (self.written, self.settled) = (0, 0);
    }

    /// Writes what the socket takes; true if all is written.
    pub fn flush(&mut self, report: &mut LoadReport) -> io::Result<bool> {
        while self.written < self.out.len() {
            match send(&self.socket, &self.out[self.written..], SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.written += sent;
                    report.bytes_out += sent as u64;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads once into `scratch` and hands over the complete replies, in order.
    pub fn receive(
        &mut self,
        scratch: &mut Vec<u8>,
        report: &mut LoadReport,
        mut take: impl FnMut(&mut Self, &Reply<'_>, &mut LoadReport) -> Result<(), Malformed>,
    ) -> io::Result<()> {
        let start = self.tail.len();
        if scratch.len() < start + READ {
            scratch.resize(start + READ, 0);
        }
        scratch[..start].copy_from_slice(&self.tail);
        let got = match recv(&self.socket, &mut scratch[start..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        report.bytes_in += got as u64;
        let mut rest = &scratch[..start + got];
        let wrong = |Malformed(text)| io::Error::new(io::ErrorKind::InvalidData, text);
        while let Some((reply, length)) = cut(rest).map_err(wrong)? {
            take(self, &reply, report).map_err(wrong)?;
            rest = &rest[length..];
        }
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        Ok(())
    }
}

/// Connects, authenticates, and makes the socket non-blocking.
pub fn connect(address: &Address, password: Option<&str>) -> io::Result<OwnedFd> {
    match address {
        Address::Tcp(name) => {
            let stream = TcpStream::connect(name.as_str())?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            authenticate(&stream, password)?;
            stream.set_nonblocking(true)?;
            Ok(stream.into())
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            authenticate(&stream, password)?;
            stream.set_nonblocking(true)?;
            Ok(stream.into())
        }
    }
}

fn authenticate(mut stream: impl Read + Write, password: Option<&str>) -> io::Result<()> {
    let Some(password) = password else {
        return Ok(());
    };
    let length = password.len();
    stream.write_all(format!("*2\r\n$4\r\nAUTH\r\n${length}\r\n{password}\r\n").as_bytes())?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        reply.extend_from_slice(&byte);
    }
    if reply == b"+OK\r\n" {
        return Ok(());
    }
    let text = format!("AUTH was answered by {}", reply.trim_ascii_end().escape_ascii());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
