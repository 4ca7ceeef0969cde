//! Sockets: the few calls that workers make, and the addresses of the peers.

use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often a call is tried again that fails for temporary reasons.
const TRIES: usize = 8;

/// The result of a read or a write.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Io {
    /// This many bytes were moved.
    Moved(usize),
    /// Nothing now; wait for the socket.
    Later,
    /// The peer is gone.
    Gone,
}

/// Reads once, to the end of `buffer`, which may grow by `chunk` bytes.
pub fn read(fd: impl AsFd, buffer: &mut Vec<u8>, chunk: usize) -> Io {
    buffer.reserve(chunk);
    let read = persist(|| {
        let spare = rustix::buffer::spare_capacity(buffer);
        rustix::net::recv(&fd, spare, RecvFlags::empty()).map(|(read, _)| read)
    });
    outcome(read, true)
}

/// Reads once, to the beginning of `bytes`.
pub fn read_into(fd: impl AsFd, bytes: &mut [u8]) -> Io {
    let mut read = || rustix::net::recv(&fd, &mut *bytes, RecvFlags::empty());
    outcome(persist(|| read().map(|(read, _)| read)), true)
}

/// Writes once.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Io {
    outcome(persist(|| rustix::net::send(&fd, bytes, SendFlags::NOSIGNAL)), false)
}

/// Repeats a call that was interrupted, or for which the kernel had no memory. Neither error tells
/// anything about the descriptor.
pub(crate) fn persist<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..TRIES {
        match call() {
            Err(Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => {}
            done => return done,
        }
    }
    call()
}

fn outcome(result: Result<usize, Errno>, zero_is_end: bool) -> Io {
    match result {
        Ok(0) if zero_is_end => Io::Gone,
        Ok(moved) => Io::Moved(moved),
        // If it is ready after all, `Worker::sweep` finds that out.
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Io::Later,
        Err(_) => Io::Gone,
    }
}

/// The peer of a connection, and the local address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer's address, as CLIENT LIST shows it.
    pub address: String,
    /// The local address, as CLIENT LIST shows it.
    pub local_address: String,
    /// The peer is on this machine: Unix socket or loopback.
    pub is_local: bool,
    /// The connection is through a Unix socket.
    pub is_unix: bool,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Bound by the supervisor.
    pub fd: OwnedFd,
    /// The address, as CLIENT LIST shows it.
    pub address: String,
    /// A Unix socket.
    pub is_unix: bool,
}

impl Listener {
    /// Accepts one connection.
    ///
    /// # Errors
    /// `AGAIN` if no connection waits; `MFILE` and the like if none can be accepted.
    pub fn accept(&self, keepalive_seconds: u64) -> Result<(OwnedFd, Peer), Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, address) = rustix::net::acceptfrom_with(&self.fd, flags)?;
        if self.is_unix {
            let peer = Peer {
                address: format!("{}:0", self.address),
                local_address: format!("{}:0", self.address),
                is_local: true,
                is_unix: true,
            };
            return Ok((fd, peer));
        }
        sockopt::set_tcp_nodelay(&fd, true)?;
        keep_alive(&fd, keepalive_seconds)?;
        let address = address.ok_or(Errno::CONNRESET)?;
        let remote = SocketAddr::try_from(address).map_err(|_| Errno::AFNOSUPPORT)?;
        let local =
            SocketAddr::try_from(rustix::net::getsockname(&fd)?).map_err(|_| Errno::AFNOSUPPORT)?;
        let is_local = match remote.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
            }
        };
        let peer = Peer {
            address: remote.to_string(),
            local_address: local.to_string(),
            is_local,
            is_unix: false,
        };
        Ok((fd, peer))
    }
}

/// As in Redis: the first probe after `seconds`, then every third of that; three misses end it.
fn keep_alive(fd: &OwnedFd, seconds: u64) -> Result<(), Errno> {
    if seconds == 0 {
        return Ok(());
    }
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, Duration::from_secs(seconds))?;
    sockopt::set_tcp_keepintvl(fd, Duration::from_secs((seconds / 3).max(1)))?;
    sockopt::set_tcp_keepcnt(fd, 3)
}

/// Connects to an instance. A Unix socket connects at once or fails.
///
/// # Errors
/// `AGAIN` if its backlog is full; `CONNREFUSED`, `NOENT` if no process listens.
pub fn connect_unix(path: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

/// The events of an edge-triggered socket that is read. Writability is requested only after a short
/// write, because a Unix socket would otherwise wake the worker each time the peer reads.
pub const READ: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// The same while a write waits for room.
pub const READ_WRITE: epoll::EventFlags = READ.union(epoll::EventFlags::OUT);
