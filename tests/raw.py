"""A client that speaks raw bytes, and what a process costs: what no client library would send."""

import array
import fcntl
import itertools
import os
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from threadis import _core
from threadis.data.layout import even_slot_map
from waiting import until

Address = tuple[str, int] | str
PATIENCE = 45.0  # seconds for any one answer on a busy machine
CHUNK = 256 * 1024


def command(*words: bytes | str | int) -> bytes:
    """A command in canonical form."""
    raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(map(bulk, raw))


def bulk(content: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%s\r\n" % (len(content), content)


class Raw:
    """One connection. Whoever reads past the end gets EOFError."""

    def __init__(self, address: Address, receive_buffer: int = 0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = bytearray()
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        """All of it, taking in what comes meanwhile: two sides that only send would block."""
        rest = memoryview(content)
        while rest:
            ready = select.poll()  # takes any descriptor, also one above 1024
            ready.register(self.socket, select.POLLIN | select.POLLOUT)
            events = sum(event for _, event in ready.poll(PATIENCE * 1000))
            readable, writable = events & ~select.POLLOUT, events & select.POLLOUT
            if readable:
                self._take()
            if writable:
                rest = rest[self.socket.send(rest[:CHUNK], socket.MSG_DONTWAIT) :]
            assert readable or writable, "the other side neither reads nor writes"

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Piece by piece; over a Unix socket, each only once the other side has read the last."""
        for piece in pieces:
            self.send(piece)
            deadline = time.monotonic() + PATIENCE
            while self.socket.family == socket.AF_UNIX and not self._is_read():
                assert time.monotonic() < deadline, "the other side does not read"

    def _is_read(self) -> bool:
        if select.select([self.socket], [], [], 1e-5)[0]:
            self._take()
        return self.is_sent()

    def is_sent(self) -> bool:
        """Whether the other side has all: its kernel over TCP, itself over a Unix socket."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, waiting)
        return waiting[0] == 0

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        while len(self._unread) - self._at < count:
            self._more()
        found = bytes(memoryview(self._unread)[self._at : self._at + count])
        self._at += count
        if self._at > CHUNK:
            del self._unread[: self._at]
            self._at = 0
        return found

    def line(self) -> bytes:
        """The next line, with its end."""
        while (end := self._unread.find(b"\r\n", self._at)) < 0:
            self._more()
        return self.exactly(end + 2 - self._at)

    def reply(self) -> bytes:
        """The next reply of RESP2, as it came."""
        line = self.line()
        if line[:1] == b"$" and line != b"$-1\r\n":
            return line + self.exactly(int(line[1:]) + 2)
        if line[:1] == b"*" and line != b"*-1\r\n":
            return line + b"".join([self.reply() for _ in range(int(line[1:]))])
        return line

    def ask(self, *words: bytes | str | int) -> bytes:
        """One command, one reply."""
        self.send(command(*words))
        return self.reply()

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        self.wait_for_end()
        return self.taken()

    def wait_for_end(self) -> None:
        """Take everything up to the end of the stream."""
        while self._take():
            pass

    def taken(self) -> bytes:
        """What has come so far."""
        found = bytes(self._unread[self._at :])
        self._unread.clear()
        self._at = 0
        return found

    def _more(self) -> None:
        if not self._take():
            raise EOFError

    def _take(self) -> bool:
        received = self.socket.recv(CHUNK)
        self._unread += received
        return bool(received)

    def half_close(self) -> None:
        """Nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close in the rudest way."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@contextmanager
def bare_server(path: str, folder: Path) -> Iterator[str]:
    """A stock server without us, for what its own words are; the path of its socket."""
    address = str(folder / "bare.sock")
    arguments = ["--port", "0", "--unixsocket", address, "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(
        [path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(address), "the bare server answers")
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(address: str) -> bool:
    try:
        with Raw(address) as client:
            return client.ask("PING") == b"+PONG\r\n"
    except OSError:
        return False


def status(pid: int, field: str) -> int:
    """Kilobytes, or a number, from /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith(field + ":"))


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    return status(pid, "VmRSS") * 1024


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def owner(key: bytes, instances: int) -> int:
    """The instance that a key lives on."""
    slot = _core.slot(key)
    return next(r.instance for r in even_slot_map(instances) if r.first <= slot <= r.last)


def keys_of(instance: int, instances: int, prefix: str = "k") -> Iterator[bytes]:
    """Keys of one instance, without end."""
    for number in itertools.count():
        key = f"{prefix}:{number}".encode()
        if owner(key, instances) == instance:
            yield key
