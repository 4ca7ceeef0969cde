"""Input that is large, claims to be large, or is no Redis protocol at all."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from conftest import Threadis
from raw import Raw, bulk, command, keys_of, resident, status
from waiting import until

INSTANCES = 4
MB = 1024 * 1024
FULL = os.environ.get("THREADIS_TORTURE") == "full"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threadis]:
    folder = tmp_path_factory.mktemp("limits")
    started = Threadis(
        folder / "data",
        folder / "serve.log",
        ["--instances", str(INSTANCES), "--workers", "1", "--save", ""],
    )
    try:
        yield started.wait_until_serving()
    finally:
        started.close()


@pytest.fixture
def connect(running: Threadis) -> Iterator[Callable[..., Raw]]:
    """Opens connections to thREaDIS, and closes them."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Raw(("127.0.0.1", running.port), **options))


Connect = Callable[..., Raw]


@pytest.mark.parametrize(
    "declared",
    [
        b"*2147483647\r\n",
        b"*1\r\n$536870912\r\n",
        b"*2147483647\r\n$536870912\r\nx",
        b"*3\r\n$3\r\nSET\r\n",
    ],
)
def test_memory_grows_only_with_bytes_received(
    running: Threadis, connect: Connect, declared: bytes
) -> None:
    control = connect()
    assert control.ask("PING") == b"+PONG\r\n"
    before = resident(running.proxy_pid())
    clients = [connect() for _ in range(400)]
    for client in clients:
        client.send(declared)
    for client in clients:
        client.half_close()
        assert client.rest() == b""  # half a command is no command
    assert control.ask("PING") == b"+PONG\r\n"
    assert status(running.proxy_pid(), "VmHWM") * 1024 - before < 16 * MB


def large_value(running: Threadis, client: Raw, megabytes: int) -> None:
    """Write, read, compare; in pieces, so that this process has it once."""
    pattern = os.urandom(MB - 7)
    content = (pattern * (megabytes + 1))[: megabytes * MB]
    client.send(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n" % len(content))
    client.send(content)
    client.send(b"\r\n" + command("GET", "large") + command("PING"))
    assert client.line() == b"+OK\r\n"
    assert client.line() == b"$%d\r\n" % len(content)
    view = memoryview(content)
    for at in range(0, len(content), MB):
        assert client.exactly(min(MB, len(content) - at)) == view[at : at + MB]
    assert client.line() == b"\r\n"
    assert client.line() == b"+PONG\r\n"
    assert client.ask("DEL", "large") == b":1\r\n"
    until(lambda: resident(running.proxy_pid()) < 150 * MB, "the memory is given back")


@pytest.mark.torture
def test_a_large_value_comes_back_whole(running: Threadis, connect: Connect) -> None:
    large_value(running, connect(), 512 if FULL else 64)


def test_others_are_served_while_a_large_value_travels(connect: Connect) -> None:
    writer, other = connect(), connect()
    key = next(keys_of(0, INSTANCES))
    content = b"v" * (32 * MB)
    assert writer.ask("SET", key, content) == b"+OK\r\n"
    worst = 0.0
    writer.send(command("GET", key) * 4)
    for _ in range(50):
        begin = time.monotonic()
        assert other.ask("INCRBY", next(keys_of(1, INSTANCES)), 0) == b":0\r\n"
        worst = max(worst, time.monotonic() - begin)
    for _ in range(4):
        assert writer.reply() == bulk(content)
    assert worst < 1.0
    assert writer.ask("DEL", key) == b":1\r\n"


@pytest.mark.torture
def test_many_keys_in_order_with_duplicates(connect: Connect) -> None:
    count = 1_000_000 if FULL else 100_000
    client = connect()
    numbers = [(index * 7919) % (count // 2) for index in range(count)]  # every key twice
    pairs = [part for number in numbers for part in (b"many:%d" % number, b"%d" % number)]
    keys = pairs[::2]
    half = 2 * (count // 2)  # a command takes 1,048,576 arguments
    for part in (pairs[:half], pairs[half:]):
        assert client.ask("MSET", *part) == b"+OK\r\n"
    client.send(command("MGET", *keys, "many:none"))
    expected = b"*%d\r\n" % (count + 1) + b"".join(map(bulk, pairs[1::2])) + b"$-1\r\n"
    assert client.exactly(len(expected)) == expected
    assert client.ask("EXISTS", *keys) == b":%d\r\n" % count
    assert client.ask("DEL", *keys) == b":%d\r\n" % (count // 2)
    assert client.ask("EXISTS", *keys) == b":0\r\n"


FOREIGN = {
    "HTTP POST": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nSET forged 1\r\n",
    "Host header": b"host: x\r\nSET forged 1\r\n",
    "HTTP GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nSET forged 1\r\n",
    "POST as RESP": command("pOsT", "x") + command("SET", "forged", 1),
    "Host as RESP": command("HOST:") + command("SET", "forged", 1),
}


@pytest.mark.parametrize("row", FOREIGN)
def test_a_browser_is_cut_off_after_what_was_owed(
    running: Threadis, connect: Connect, row: str
) -> None:
    other, client = connect(), connect()
    keys = [next(keys_of(index, INSTANCES)) for index in range(INSTANCES)]
    before = b"".join(command("INCRBY", key, 0) for key in keys) * 25
    lanes = other_lanes(running)
    other.send(before)
    client.send(before + FOREIGN[row])
    answer = client.rest()
    assert answer.startswith(b":0\r\n" * 100)
    rest = answer[len(b":0\r\n" * 100) :]
    assert rest == b"" or (rest.startswith(b"-ERR") and rest.count(b"\r\n") == 1), rest
    assert other.exactly(400) == b":0\r\n" * 100
    assert other.ask("GET", "forged") == b"$-1\r\n"
    assert other_lanes(running) == lanes


def other_lanes(running: Threadis) -> object:
    """How many lanes have been lost so far."""
    with running.client() as client:
        return client.info("threadis")["threadis_lanes_broken"]


STRANGERS = {
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(256)) * 2,
    "SSH": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "memcached": b"get x\r\nset x 0 0 1\r\n1\r\nversion\r\n",
    "PROXY 1": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "PROXY 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + struct.pack(">IIHH", 1, 2, 3, 4),
    "UTF-16": "PING\r\n".encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + os.urandom(2000),
    "NULs": b"\0" * 200_000,
    "NULs in lines": b"\0\n" * 20_000,
    "high bytes": b"\xff" * 70_000,
    "RESP3 push": b">2\r\n+a\r\n+b\r\n",
    "a reply": b"+OK\r\n:1\r\n$-1\r\n-ERR\r\n",
}


@pytest.mark.parametrize("row", STRANGERS)
def test_other_protocols_get_errors_or_the_end(
    running: Threadis, connect: Connect, row: str
) -> None:
    client, other = connect(), connect()
    log = len(running.log())
    with suppress(OSError):
        client.send(STRANGERS[row])
        client.half_close()
        client.wait_for_end()
    answer = client.taken()
    lines = answer.split(b"\r\n")[:-1]
    # "get x" of memcached is also a command of ours, "QUIT" of PROXY 2 too
    harmless = {b"$-1", b"+OK"}
    assert all(line.startswith(b"-") or line in harmless for line in lines), lines[:5]
    assert other.ask("PING") == b"+PONG\r\n"
    assert len(running.log()) == log  # strangers do not fill the log


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threadis]:
    """One with a password."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "threadis.toml").write_text('requirepass = "secret"\n')
    started = Threadis(
        folder / "data",
        folder / "serve.log",
        ["--instances", "2", "--config", str(folder / "threadis.toml")],
    )
    try:
        yield started.wait_until_serving()
    finally:
        started.close()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (command("SET", *"0123456789"), b"unauthenticated multibulk length"),
        (b"*11\r\n", b"unauthenticated multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n$16385\r\n", b"unauthenticated bulk length"),
    ],
)
def test_strangers_have_small_limits(locked: Threadis, content: bytes, text: bytes) -> None:
    with Raw(("127.0.0.1", locked.port)) as client:
        client.send(command("GET", "k") + content)
        noauth = b"-NOAUTH Authentication required.\r\n"
        assert client.rest() == noauth + b"-ERR Protocol error: " + text + b"\r\n"
    with Raw(("127.0.0.1", locked.port)) as client:
        assert client.ask("AUTH", "x" * 16384).startswith(b"-WRONGPASS")
        assert client.ask("AUTH", "secret") == b"+OK\r\n"
        assert client.ask("SET", "k", b"v" * 16385) == b"+OK\r\n"
        assert client.ask("DEL", *"0123456789") == b":0\r\n"


def test_a_stranger_who_only_sends_costs_little(locked: Threadis) -> None:
    with Raw(("127.0.0.1", locked.port), receive_buffer=4096) as client:
        before = resident(locked.proxy_pid())
        packet, sent = memoryview(command("GET", "k") * 3000), 0
        client.socket.settimeout(0.5)  # it takes no more once its answers are not read
        with suppress(TimeoutError):
            while sent < 100 * MB:
                sent += client.socket.send(packet[sent % len(packet) :])
        assert sent < 100 * MB
        assert resident(locked.proxy_pid()) - before < 16 * MB
        client.socket.settimeout(20)
        whole = sent // len(command("GET", "k"))
        for _ in range(whole):
            assert client.line() == b"-NOAUTH Authentication required.\r\n"
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""
