"""A client writes everything before it reads anything, whatever the commands."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from conftest import Threadis
from differential.pair import Pair
from differential.wire import pack
from raw import Address, bulk

PATIENCE = 30.0  # seconds for any one call on a busy machine
LARGE = b"v" * 10_000
COUNT = 1200  # of LARGE, in each direction: more than the sockets of both sides hold
END = b"all is answered"


def times(command: Callable[[int], bytes], count: int = COUNT) -> bytes:
    """So many commands."""
    return b"".join(map(command, range(count)))


def several(value: bytes) -> bytes:
    """MSET of ten keys, wherever they are."""
    return pack("MSET", *[part for at in range(10) for part in (f"s{at}", value)])


KEYS = [f"s{at}" for at in range(10)]
ROADS = {
    "one key": times(lambda n: pack("SET", f"k{n % 100}", LARGE, "GET")),
    "small replies": times(lambda _: pack("INCR", "n"), 500_000),
    "no keys": times(lambda _: pack("ECHO", LARGE)),
    "inline": times(lambda _: b"ECHO " + LARGE + b"\r\n"),
    "parts": several(LARGE)
    + times(lambda n: pack("GETSET", f"s{n % 10}", LARGE))
    + pack("MGET", *KEYS) * 120,
    "commits": times(lambda _: several(LARGE) + pack("MGET", *KEYS), 120),
    "MULTI": times(
        lambda n: pack("MULTI") + pack("SET", "k", LARGE) + pack("GET", "k") + pack("EXEC")
    ),
    "MULTI over several": times(
        lambda n: (
            pack("MULTI")
            + b"".join(pack("GETSET", f"k{n % 7 + at}", LARGE) for at in range(4))
            + pack("EXEC")
        ),
        300,
    ),
    "EXEC by the coordinator": times(
        lambda n: (
            pack("MULTI")
            + pack("SMOVE", "a", "b", "c")
            + pack("GETSET", "k", LARGE)
            + pack("GETSET", "l", LARGE)
            + pack("EXEC")
        ),
        500,
    ),
    "WATCH": times(
        lambda n: pack("WATCH", "k") + pack("MULTI") + pack("GETSET", "k", LARGE) + pack("EXEC"),
        1000,
    ),
    "scripts": times(lambda n: pack("EVAL", "return ARGV[1]", 1, f"k{n}", LARGE)),
    "new scripts": times(lambda n: pack("EVAL", f"return ARGV[1] --{n}", 0, LARGE)),
    "RENAME": times(
        lambda n: pack("SET", "from", LARGE) + pack("RENAME", "from", "to") + pack("GET", "to")
    ),
    "BLPOP that is served": times(
        lambda _: pack("RPUSH", "queue", LARGE) + pack("BLPOP", "queue", "other", 0)
    ),
    "other databases": times(
        lambda n: pack("SELECT", n % 16) + pack("SET", "k", LARGE) + pack("GETSET", "k", LARGE)
    ),
    "big arguments": times(lambda n: pack("SET", f"k{n % 5}", LARGE * 30, "GET"), 60),
    "big replies": pack("SET", "big", LARGE * 300)
    + times(lambda n: pack("GET", "big") + pack("SET", "k", LARGE * 100), 12),
    "big replies of several": several(LARGE * 110)
    + times(lambda n: pack("GET", f"s{n % 10}"), 20)
    + times(lambda n: pack("SET", f"k{n}", LARGE)),
    "a big reply in EXEC": pack("SET", "big", LARGE * 300)
    + times(
        lambda n: (
            pack("MULTI")
            + pack("GET", "big")
            + pack("SMOVE", "a", "b", "c")
            + pack("SET", "k", LARGE * 100)
            + pack("EXEC")
        ),
        10,
    ),
    "everything of all instances": times(lambda _: pack("DBSIZE") + pack("ECHO", LARGE)),
    "errors": times(lambda _: pack(LARGE) + pack("GET") + pack("ECHO", LARGE)),
    "subscribed": pack("SUBSCRIBE", "a", "b")
    + times(lambda n: pack("PING", LARGE) + pack("SUBSCRIBE", f"c{n}"))
    + times(lambda n: pack("UNSUBSCRIBE", f"c{n}"))
    + pack("UNSUBSCRIBE", "a")
    + pack("UNSUBSCRIBE", "b"),
    "replies unwanted": pack("CLIENT", "REPLY", "OFF")
    + times(lambda _: pack("ECHO", LARGE))
    + pack("CLIENT", "REPLY", "ON")
    + times(lambda _: pack("ECHO", LARGE)),
    "every other reply unwanted": times(
        lambda n: pack("CLIENT", "REPLY", "SKIP") + pack("ECHO", LARGE) + pack("ECHO", LARGE)
    ),
}


@contextlib.contextmanager
def connected(address: Address, protocol: int = 2) -> Iterator[socket.socket]:
    """A connection, with the kernel's own buffers: they take 3 MB from who does not read.

    With SO_RCVBUF a kernel may drop what it has promised to take and then, as long as nobody reads,
    all that says that the other side has read (docs/decisions/client-input.md).
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        if protocol == 3:
            client.sendall(pack("HELLO", 3) + pack("ECHO", END))
            read_to(client, bulk(END))
        yield client


def read_to(client: socket.socket, end: bytes) -> bytes:
    """Everything up to these bytes, which come last."""
    found = bytearray()
    while not found.endswith(end):
        data = client.recv(1 << 20)
        assert data, f"hung up after {bytes(found[-300:])!r}"
        found += data
    return bytes(found)


def answered(address: Address, commands: bytes, protocol: int = 2) -> bytes:
    """What a client reads that has written everything."""
    with connected(address, protocol) as client:
        client.sendall(commands + pack("ECHO", END))
        return read_to(client, bulk(END))


def tcp(running: Threadis) -> Address:
    """Where it listens."""
    return ("127.0.0.1", running.port)


@pytest.mark.sample
@pytest.mark.parametrize("road", ROADS)
def test_whatever_the_commands(pair: Pair, road: str) -> None:
    expected = answered(pair.bare, ROADS[road])
    found = answered(tcp(pair.threadis), ROADS[road])
    assert len(found) == len(expected)
    assert found == expected


def test_in_resp3_with_a_client_that_tracks(pair: Pair) -> None:
    commands = pack("CLIENT", "TRACKING", "ON", "NOLOOP") + times(
        lambda n: pack("GETSET", f"k{n % 9}", LARGE)
    )
    expected = answered(pair.bare, commands, protocol=3)
    assert answered(tcp(pair.threadis), commands, protocol=3) == expected


def test_a_monitor(pair: Pair) -> None:
    with connected(tcp(pair.threadis)) as client:
        client.sendall(pack("MONITOR") + times(lambda _: pack("ECHO", LARGE)) + pack("QUIT"))
        found = bytearray()
        while data := client.recv(1 << 20):  # lines come between the replies, and behind the last
            found += data
    assert found.count(bulk(LARGE)) == COUNT


COMMANDS = times(lambda n: pack("GETSET", f"k{n % 9}", LARGE))


def test_while_it_is_blocked(pair: Pair) -> None:
    found = []
    for address in (pair.bare, tcp(pair.threadis)):
        with connected(address) as client, connected(address) as other:
            client.sendall(pack("BLPOP", "queue", "other", 0) + COMMANDS + pack("ECHO", END))
            other.sendall(pack("RPUSH", "queue", "x"))
            assert other.recv(100) == b":1\r\n"
            found.append(read_to(client, bulk(END)))
    assert found[0] == found[1]


def test_while_it_is_paused(pair: Pair) -> None:
    found = []
    for address in (pair.bare, tcp(pair.threadis)):
        with connected(address) as client, connected(address) as other:
            other.sendall(pack("CLIENT", "PAUSE", 100_000, "WRITE"))
            assert other.recv(100) == b"+OK\r\n"
            try:
                client.sendall(COMMANDS + pack("ECHO", END))
            finally:
                other.sendall(pack("CLIENT", "UNPAUSE"))
            assert other.recv(100) == b"+OK\r\n"
            found.append(read_to(client, bulk(END)))
    assert found[0] == found[1]


@pytest.mark.parametrize("last", ["a protocol error", "QUIT"])
def test_what_came_before_the_end_is_answered(pair: Pair, last: str) -> None:
    ends = {
        "a protocol error": (
            b"*1\r\n:1\r\n",
            b"-ERR Protocol error: expected '$', got ':'\r\n",
        ),
        "QUIT": (pack("QUIT"), b"+OK\r\n"),
    }
    end, answer = ends[last]
    with connected(tcp(pair.threadis)) as client:
        client.sendall(times(lambda _: pack("ECHO", LARGE)) + end + COMMANDS)
        assert read_to(client, answer) == bulk(LARGE) * COUNT + answer
        assert client.recv(1) == b""
