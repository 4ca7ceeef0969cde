"""Plain sockets, for loads that the generator in Rust does not have."""

import socket

from threadis.bench.errors import BenchError

TIMEOUT = 30.0  # seconds for anything
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: choose the port when it is known where to


def connected_to(address: str, source: int = 0) -> socket.socket:
    """Connect to ``host:port`` of IPv4 loopback.

    Each source is an address of its own, 127.0.0.1 and up, since one address has only 28,000 ports,
    including those of connections that were closed within the last minute.
    """
    host, _, port = address.rpartition(":")
    client = socket.socket()
    try:
        client.settimeout(TIMEOUT)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((f"127.0.{source // 250 % 250}.{source % 250 + 1}", 0))
        client.connect((host, int(port)))
    except BaseException:
        client.close()
        raise
    return client


def encode(*words: str | bytes) -> bytes:
    """Encode one command."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word if isinstance(word, bytes) else word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def receive_exactly(client: socket.socket, expected: bytes) -> None:
    """Read as many bytes, and check that they are equal."""
    got = b""
    while len(got) < len(expected):
        more = client.recv(len(expected) - len(got))
        if not more:
            raise BenchError(f"a connection was closed after {got!r}")
        got += more
    if got != expected:
        raise BenchError(f"{expected!r} was expected, {got!r} came")
