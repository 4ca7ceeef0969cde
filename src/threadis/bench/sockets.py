"""Plain sockets, for what the load generator in Rust does not do."""

import socket

from threadis.bench.errors import BenchError

TIMEOUT = 10.0  # seconds for anything


def connected_to(address: str) -> socket.socket:
    """A connection to ``host:port``."""
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), TIMEOUT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def encode(*words: str | bytes) -> bytes:
    """One command."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word if isinstance(word, bytes) else word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def receive_exactly(client: socket.socket, expected: bytes) -> None:
    """Read as many bytes, which must be these."""
    got = b""
    while len(got) < len(expected):
        more = client.recv(len(expected) - len(got))
        if not more:
            raise BenchError(f"a connection was closed after {got!r}")
        got += more
    if got != expected:
        raise BenchError(f"{expected!r} was expected, {got!r} came")
