//! One client: a socket, what it has sent, what it is owed.
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
use super::request::{ANY, Author, Expected, Requests};
use super::tally::{Fault, LoadReport};
use super::value::Values;

const READ: usize = 64 * 1024; // bytes a read(2)
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5); // also for the reply to AUTH

/// A connected client; at most one batch of commands is under way.
#[derive(Debug)]
pub struct Client {
    /// Where it reads and writes.
    pub socket: OwnedFd,
    /// What it has written.
    pub author: Author,
    /// Whether the loop is to tell when the socket takes more.
    pub waits_to_write: bool,
    /// Whether a batch is under way, as the loop sees it.
    pub busy: bool,
    out: Vec<u8>,
    written: usize,
    owed: Vec<Expected>,
    settled: usize,
    due: u64,
    tail: Vec<u8>,
    keys_per_command: usize,
}

impl Client {
    /// A client on a connected, non-blocking socket.
    pub fn new(socket: OwnedFd, author: Author, keys_per_command: usize) -> Self {
        Self {
            socket,
            author,
            waits_to_write: false,
            busy: false,
            out: Vec::new(),
            written: 0,
            owed: Vec::new(),
            settled: 0,
            due: 0,
            tail: Vec::new(),
            keys_per_command,
        }
    }

    /// Commands sent and not answered yet.
    pub fn outstanding(&self) -> u64 {
        ((self.owed.len() - self.settled) / self.keys_per_command) as u64
    }

    /// Begins a batch that is `due`, from when its latency counts; only when nothing is outstanding.
    pub fn fill(&mut self, requests: &mut Requests, pipeline: usize, due: u64) {
        self.out.clear();
        self.owed.clear();
        (self.written, self.settled, self.due) = (0, 0, due);
        for _ in 0..pipeline {
            if !requests.append(&mut self.author, &mut self.out, &mut self.owed) {
                break;
            }
        }
    }

    /// Writes what the socket takes; true when all is written.
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

    /// Reads once into `scratch` and judges the replies that are whole; their number, if the
    /// connection can go on.
    pub fn receive(
        &mut self,
        scratch: &mut Vec<u8>,
        values: &Values,
        report: &mut LoadReport,
    ) -> io::Result<u64> {
        let start = self.tail.len();
        if scratch.len() < start + READ {
            scratch.resize(start + READ, 0);
        }
        scratch[..start].copy_from_slice(&self.tail);
        let got = match recv(&self.socket, &mut scratch[start..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        report.bytes_in += got as u64;
        let bytes = &scratch[..start + got];
        let before = self.outstanding();
        let used = self
            .settle(bytes, values, report)
            .map_err(|Malformed(text)| io::Error::new(io::ErrorKind::InvalidData, text))?;
        self.tail.clear();
        self.tail.extend_from_slice(&bytes[used..]);
        Ok(before - self.outstanding())
    }

    /// How long ago the batch was due.
    pub fn age(&self, now: u64) -> u64 {
        now - self.due
    }

    fn settle(
        &mut self,
        bytes: &[u8],
        values: &Values,
        report: &mut LoadReport,
    ) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < bytes.len() {
            let Some((reply, length)) = cut(&bytes[used..])? else {
                break;
            };
            used += length;
            let first = self.settled;
            if first == self.owed.len() {
                return Err(Malformed("a reply that nothing asked for"));
            }
            self.settled += self.keys_per_command;
            match reply {
                Reply::Array(count, mut elements) if count == self.keys_per_command => {
                    for at in first..self.settled {
                        let (element, length) = cut(elements)?.ok_or(Malformed("a short array"))?;
                        elements = &elements[length..];
                        self.judge(at, &element, values, report);
                    }
                }
                reply => self.judge(first, &reply, values, report),
            }
        }
        Ok(used)
    }

    #[inline]
    fn judge(&mut self, at: usize, reply: &Reply<'_>, values: &Values, report: &mut LoadReport) {
        let asked = self.owed[at];
        let client = self.author.client;
        match reply {
            Reply::Simple(b"OK") if asked.is_set => {}
            Reply::Bulk(Some(value)) if !asked.is_set => {
                let stamp = values.read(value);
                let fits = stamp.is_some_and(|stamp| {
                    let last = stamp.client == client && stamp.sequence == asked.sequence;
                    stamp.key == asked.key && (asked.sequence == ANY || last)
                });
                // A failed write leaves open which value the key has; that it is the key's, not.
                let open = || {
                    stamp.is_some_and(|stamp| stamp.key == asked.key)
                        && self.author.last_write(asked.key) == ANY
                };
                if !fits && !open() {
                    report.wrong_value(client, asked, stamp, value, &self.owed);
                }
            }
            Reply::Bulk(None) if !asked.is_set => {
                if report.nil_is_fault || asked.sequence != ANY {
                    let text = format!("nil for key {}", asked.key);
                    report.fault(Fault::Missing, 1, client, &text);
                }
            }
            Reply::Error(text) => {
                if asked.is_set {
                    self.author.note_write(asked.key, ANY);
                }
                let text = format!("key {}: {}", asked.key, text.escape_ascii());
                report.fault(Fault::Server, 1, client, &text);
            }
            other => {
                let command = if asked.is_set { "SET" } else { "GET" };
                let text = format!("{command} of key {} answered by {other:?}", asked.key);
                report.fault(Fault::Protocol, 1, client, &text);
            }
        }
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
