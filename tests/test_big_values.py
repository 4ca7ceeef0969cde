"""Values larger than any buffer: streamed both ways, held up by nobody, holding up nobody."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Threadis
from faults import stopped
from raw import Raw, bulk, command, keys_of, resident, status
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 2
MB = 1024 * 1024
KEYS = [next(keys_of(index, INSTANCES)) for index in range(INSTANCES)]
KEY = KEYS[0]
BESIDE = next(keys_of(0, INSTANCES, "beside"))  # on the same instance
PIECE = os.urandom(MB - 7)  # no multiple of any buffer
NOT_RUN = b"-TRYAGAIN instance 0 was lost; the command was not run\r\n"

Connect = Callable[..., Raw]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, stock_server: ServerBinary
) -> Iterator[Threadis]:
    folder = tmp_path_factory.mktemp("big")
    arguments = ["--server", stock_server.path, "--instances", str(INSTANCES)]
    started = Threadis(
        folder / "data", folder / "serve.log", [*arguments, "--workers", "1", "--save", ""]
    )
    try:
        yield started.wait_until_serving()
        # Those that are shared stay for a minute: one for each instance, and one for database 3.
        until(lambda: lanes(started) <= INSTANCES + 1, "what was beside them is closed")
        assert lanes(started, "threadis_lanes_broken") == 0
    finally:
        started.close()


@pytest.fixture
def connect(running: Threadis) -> Iterator[Connect]:
    """Opens connections to thREaDIS, and closes them."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Raw(("127.0.0.1", running.port), **options))
    with Raw(("127.0.0.1", running.port)) as client:
        assert client.ask("FLUSHALL") == b"+OK\r\n"


def lanes(running: Threadis, field: str = "threadis_lanes") -> int:
    with running.client() as client:
        return int(client.info("threadis")[field])


def is_aside(running: Threadis) -> bool:
    """Whether a lane has something big."""
    return lanes(running, "threadis_lanes_aside") > 0


def value(size: int) -> bytes:
    return (PIECE * (size // len(PIECE) + 1))[:size]


def pieces(size: int) -> Iterator[bytes]:
    """The same, so that this process never has it whole."""
    for at in range(0, size, len(PIECE)):
        yield PIECE[: min(len(PIECE), size - at)]


def begin_set(client: Raw, key: bytes, size: int) -> None:
    """All of a SET but its value."""
    client.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, size))


def write(client: Raw, key: bytes, size: int) -> None:
    begin_set(client, key, size)
    for piece in pieces(size):
        client.send(piece)
    client.send(b"\r\n")
    assert client.reply() == b"+OK\r\n"


def read(client: Raw, size: int) -> None:
    assert client.line() == b"$%d\r\n" % size
    for piece in pieces(size):
        assert client.exactly(len(piece)) == piece
    assert client.exactly(2) == b"\r\n"


class Peak:
    """By how much a process grows at most, from here on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = resident(pid)

    def growth(self) -> int:
        return status(self.pid, "VmHWM") * 1024 - self.before


def test_a_value_never_sits_whole_in_the_proxy(running: Threadis, connect: Connect) -> None:
    size = 300 * MB
    client = connect()
    assert client.ask("PING") == b"+PONG\r\n"
    peak = Peak(running.proxy_pid())
    write(client, KEY, size)
    client.send(command("GET", KEY) + command("STRLEN", KEY))
    read(client, size)
    assert client.reply() == b":%d\r\n" % size
    assert peak.growth() < 8 * MB


def test_nor_does_one_that_is_read_slowly(running: Threadis, connect: Connect) -> None:
    size = 100 * MB
    writer, slow, other = connect(), connect(receive_buffer=4096), connect()
    for key in KEYS:
        write(writer, key, size)
    peak = Peak(running.proxy_pid())
    # The second cannot be written before the first; the third is behind the first on its lane.
    slow.send(command("GET", KEYS[0]) + command("GET", KEYS[1]) + command("GET", KEYS[0]))
    # Before that nobody knows that something big comes, and would wait behind it.
    until(lambda: lanes(running, "threadis_lanes_aside") == 2, "both lanes are set aside")
    for _ in range(1000):
        other.send(command("SET", BESIDE, "v") + command("GET", BESIDE))
        assert other.reply() == b"+OK\r\n"
        assert other.reply() == bulk(b"v")
    for _ in range(3):
        read(slow, size)
    assert slow.ask("PING") == b"+PONG\r\n"
    assert peak.growth() < 16 * MB


def test_a_large_list_is_no_different(running: Threadis, connect: Connect) -> None:
    count, element = 300_000, b"x" * 100
    client, slow, other = connect(), connect(receive_buffer=4096), connect()
    for _ in range(count // 10_000):
        client.send(command("RPUSH", KEY, *[element] * 10_000))
        client.reply()
    peak = Peak(running.proxy_pid())
    slow.send(command("LRANGE", KEY, 0, -1))
    until(lambda: is_aside(running), "a lane is set aside")
    assert other.ask("LLEN", KEY) == b":%d\r\n" % count
    assert slow.line() == b"*%d\r\n" % count
    for _ in range(count):
        assert slow.exactly(108) == b"$100\r\n%s\r\n" % element
    assert peak.growth() < 8 * MB


def test_whoever_was_behind_it_is_answered(running: Threadis, connect: Connect) -> None:
    size = 30 * MB
    writer, slow, others = connect(), connect(receive_buffer=4096), [connect() for _ in range(10)]
    write(writer, KEY, size)
    identities = [int(one.ask("CLIENT", "ID")[1:]) for one in [slow, *others]]
    with running.client() as watcher:

        def last_commands() -> list[str]:
            rows = watcher.client_list(client_id=identities)
            return [row["cmd"] for row in rows]

        with stopped(running.instance_pids()[0]):  # all of it is on one lane, and waits there
            slow.send(command("GET", KEY) + command("ECHO", "behind"))
            until(lambda: last_commands().count("echo") == 1, "the big one is on its way")
            for other in others:
                other.send(command("INCRBY", BESIDE, 1) + command("ECHO", "behind"))
            until(lambda: last_commands().count("echo") == 11, "all are on their way")
    replies = [other.reply() for other in others]  # while nobody reads the big one
    assert sorted(replies) == sorted(b":%d\r\n" % number for number in range(1, 11))
    assert [other.reply() for other in others] == [bulk(b"behind")] * 10
    read(slow, size)
    assert slow.reply() == bulk(b"behind")


def test_no_lock_waits_for_who_does_not_read(running: Threadis, connect: Connect) -> None:
    size = 20 * MB
    slow, other = connect(receive_buffer=4096), connect()
    write(other, KEY, size)
    for count in (1, 3):
        slow.send(command("GET", KEY) * count)
        until(lambda: is_aside(running), "a lane is set aside")
        for _ in range(10):
            assert other.ask("MSET", BESIDE, 1, KEYS[1], 2) == b"+OK\r\n"
        assert other.ask("RENAME", KEY, KEYS[1]) == b"+OK\r\n"
        assert other.ask("RENAME", KEYS[1], KEY) == b"+OK\r\n"
        for _ in range(count):
            read(slow, size)
    slow.send(command("GET", KEY) * 2)
    until(lambda: is_aside(running), "a lane is set aside")
    assert other.ask("FLUSHALL") == b"+OK\r\n"
    read(slow, size)
    read(slow, size)


def test_nor_for_who_does_not_write_on(connect: Connect) -> None:
    size = 3 * MB
    stalled, other = connect(), connect()
    begin_set(stalled, KEY, size)
    stalled.send(value(size))  # all but the last two bytes
    assert other.ask("SET", KEY, "before") == b"+OK\r\n"
    assert other.ask("MSET", KEY, 1, KEYS[1], 2) == b"+OK\r\n"
    assert other.ask("RENAME", KEY, KEYS[1]) == b"+OK\r\n"
    assert other.ask("FLUSHALL") == b"+OK\r\n"
    assert other.ask("EXISTS", KEY) == b":0\r\n"
    stalled.send(b"\r\n")
    assert stalled.reply() == b"+OK\r\n"
    assert other.ask("STRLEN", KEY) == b":%d\r\n" % size


def test_the_last_bytes_wait_for_the_end_of_a_pause(connect: Connect) -> None:
    size = 3 * MB
    writer, other = connect(), connect()
    begin_set(writer, KEY, size)
    writer.send(value(size // 2))
    assert other.ask("CLIENT", "PAUSE", 1_000_000, "WRITE") == b"+OK\r\n"
    writer.send(value(size)[size // 2 :] + b"\r\n" + command("GET", KEY))
    until(lambda: b"blocked_clients:1\r\n" in other.ask("INFO", "clients"), "the writer waits")
    assert other.ask("EXISTS", KEY) == b":0\r\n"
    assert other.ask("CLIENT", "UNPAUSE") == b"+OK\r\n"
    assert writer.reply() == b"+OK\r\n"
    whole = value(size // 2) + value(size)[size // 2 :]
    assert writer.reply() == bulk(whole)


BIG = value(2 * MB)
TAILS: dict[str, tuple[list[tuple[bytes | str | int, ...]], bytes]] = {
    "an option behind it": ([("SET", KEY, BIG, "EX", 100), ("TTL", KEY)], b"+OK\r\n:100\r\n"),
    "a wrong option": ([("SET", KEY, BIG, "EX")], b"-ERR syntax error\r\n"),
    "a wrong type": (
        [("RPUSH", KEY, 1), ("APPEND", KEY, BIG)],
        b":1\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    ),
    "several": (
        [("HSET", KEY, "a", BIG, "", BIG, "c", "", "d", BIG), ("HSTRLEN", KEY, "d")],
        b":4\r\n:%d\r\n" % len(BIG),
    ),
    "in the middle of a pipeline": (
        [("SET", KEY, 1), ("APPEND", KEY, BIG), ("APPEND", KEY, BIG), ("STRLEN", KEY), ("PING",)],
        b"+OK\r\n:%d\r\n:%d\r\n:%d\r\n+PONG\r\n"
        % (len(BIG) + 1, 2 * len(BIG) + 1, 2 * len(BIG) + 1),
    ),
    "in a transaction": (
        [("MULTI",), ("SET", KEY, BIG), ("STRLEN", KEY), ("EXEC",)],
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:%d\r\n" % len(BIG),
    ),
    "over several instances": (
        [("MSET", KEYS[0], BIG, KEYS[1], BIG), ("STRLEN", KEYS[1])],
        b"+OK\r\n:%d\r\n" % len(BIG),
    ),
    "without replies": (
        [("CLIENT", "REPLY", "OFF"), ("SET", KEY, BIG), ("CLIENT", "REPLY", "ON")],
        b"+OK\r\n",
    ),
    "in another database": (
        [("SELECT", 3), ("SET", KEY, BIG), ("SELECT", 0), ("EXISTS", KEY)],
        b"+OK\r\n+OK\r\n+OK\r\n:0\r\n",
    ),
}


@pytest.mark.parametrize("row", TAILS)
@pytest.mark.parametrize("size", [1 << 30, 100_000], ids=["at once", "in pieces"])
def test_a_big_argument(connect: Connect, row: str, size: int) -> None:
    commands, replies = TAILS[row]
    client = connect()
    stream = b"".join(command(*words) for words in commands)
    for at in range(0, len(stream), size):
        client.send(stream[at : at + size])
    assert client.exactly(len(replies)) == replies
    assert client.ask("ECHO", "end") == bulk(b"end")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (b"xx", b"invalid CRLF in request"),
        (b"\r\n+OK\r\n", b"expected '$', got '+'"),
        (b"\r\n$-1\r\n", b"invalid bulk length"),
        (b"\r\n$536870913\r\n", b"invalid bulk length"),
        (b"\r\n$1\r\nxyz", b"invalid CRLF in request"),
    ],
)
def test_what_is_wrong_behind_it(connect: Connect, wrong: bytes, text: bytes) -> None:
    client, other = connect(), connect()
    client.send(b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n" % (len(KEY), KEY))
    client.send(b"$%d\r\n%s%s" % (len(BIG), BIG, wrong))
    assert client.rest() == b"-ERR Protocol error: " + text + b"\r\n"
    assert other.ask("EXISTS", KEY) == b":0\r\n"


def test_clients_that_vanish_in_the_middle(running: Threadis, connect: Connect) -> None:
    other = connect()
    assert other.ask("SET", KEY, "old") == b"+OK\r\n"
    writers = [connect() for _ in range(20)]
    for writer in writers:
        begin_set(writer, KEY, 100 * MB)
        writer.send(value(MB))
    until(lambda: lanes(running, "threadis_lanes_aside") == 20, "they have lanes")
    for number, writer in enumerate(writers):
        writer.reset() if number % 2 else writer.half_close()
    until(lambda: not is_aside(running), "they have none")
    assert other.ask("GET", KEY) == bulk(b"old")
    write(other, KEY, 50 * MB)
    readers = [connect(receive_buffer=4096) for _ in range(5)]
    for reader in readers:
        reader.send(command("GET", KEY) * 3)
        assert reader.line() == b"$%d\r\n" % (50 * MB)
    for reader in readers:
        reader.reset()
    until(lambda: not is_aside(running), "nor have they")
    assert other.ask("STRLEN", KEY) == b":%d\r\n" % (50 * MB)


def test_whoever_waits_for_it_gets_a_big_element(connect: Connect) -> None:
    waiting, pusher, thief = connect(), connect(), connect()
    stream = command("RPUSH", KEY, BIG)
    pusher.send(stream[:-1000])
    waiting.send(command("BLPOP", KEY, 0))
    until(lambda: b"blocked_clients:1\r\n" in thief.ask("INFO", "clients"), "one waits")
    pusher.send(stream[-1000:])
    assert pusher.reply() == b":1\r\n"
    assert thief.ask("LPOP", KEY) == b"$-1\r\n"
    assert waiting.reply() == b"*2\r\n" + bulk(KEY) + bulk(BIG)


def test_more_uploads_than_lanes(running: Threadis, connect: Connect) -> None:
    """Lanes for big values are limited: the others wait whole in the proxy, as before."""
    size = MB
    keys = [b"{%s}:%d" % (KEY, number) for number in range(200)]
    clients = [connect() for _ in keys]
    for client, key in zip(clients, keys, strict=True):
        begin_set(client, key, size)
        client.send(BIG[: size // 2])
    assert lanes(running) < INSTANCES + 150
    for number, client in enumerate(clients):
        client.send(b"%6d" % number + BIG[size // 2 + 6 : size] + b"\r\n")
    for number, (client, key) in enumerate(zip(clients, keys, strict=True)):
        assert client.reply() == b"+OK\r\n"
        assert client.ask("GETRANGE", key, size // 2, size // 2 + 5) == bulk(b"%6d" % number)


class Model:
    """What one client's commands should be answered."""

    def __init__(self, dice: random.Random, name: str) -> None:
        self.dice = dice
        names = [next(keys_of(index, INSTANCES, name)) for index in range(INSTANCES)]
        self.values = dict.fromkeys(names, b"")

    def step(self) -> tuple[bytes, bytes]:
        """A command, and its reply."""
        key = self.dice.choice(list(self.values))
        before = self.values[key]
        part = self.dice.randbytes(1) * self.dice.choice([1, 10, 1000, 70_000, MB + 1, 3 * MB])
        match self.dice.randrange(6):
            case 0 | 1:
                self.values[key] = part
                return command("SET", key, part), b"+OK\r\n"
            case 2:
                self.values[key] = before + part if len(before) < 8 * MB else part
                if len(before) < 8 * MB:
                    return command("APPEND", key, part), b":%d\r\n" % len(self.values[key])
                return command("SET", key, part), b"+OK\r\n"
            case 3:
                return command("STRLEN", key), b":%d\r\n" % len(before)
            case 4:
                return command("GETRANGE", key, 0, 9), bulk(before[:10])
            case _:
                return command("MGET", key, "none"), b"*2\r\n" + bulk(before) + b"$-1\r\n"


@pytest.mark.parametrize("seed", range(4))
def test_one_clients_commands_stay_in_order(connect: Connect, seed: int) -> None:
    dice = random.Random(seed)
    models = [Model(dice, f"model{number}") for number in range(3)]
    clients = [connect() for _ in models]
    for client, model in zip(clients, models, strict=True):
        for key in model.values:
            assert client.ask("SET", key, "") == b"+OK\r\n"
    for _ in range(10):
        expected = []
        for client, model in zip(clients, models, strict=True):
            steps = [model.step() for _ in range(dice.randrange(1, 8))]
            client.send(b"".join(words for words, _ in steps))
            expected.append(b"".join(reply for _, reply in steps))
        for client, replies in zip(clients, expected, strict=True):
            assert client.exactly(len(replies)) == replies


def test_an_instance_that_dies_in_the_middle(threadis: Callable[..., Threadis]) -> None:
    started = threadis("--instances", str(INSTANCES), "--workers", "1", "--save", "")
    address = ("127.0.0.1", started.port)
    with Raw(address) as writer, Raw(address, 4096) as reader, Raw(address) as other:
        write(other, KEY, 50 * MB)
        assert other.ask("SET", KEYS[1], "well") == b"+OK\r\n"
        reader.send(command("GET", KEY))
        assert reader.line() == b"$%d\r\n" % (50 * MB)
        begin_set(writer, KEY, 100 * MB)
        writer.send(value(MB))
        until(lambda: lanes(started, "threadis_lanes_aside") == 2, "each has a lane")
        os.kill(started.instance_pids()[0], signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):  # nothing else would be true
            reader.exactly(50 * MB)
        assert other.ask("GET", KEYS[1]) == bulk(b"well")
        for _ in range(99):
            writer.send(value(MB))
        writer.send(b"\r\n")
        assert writer.reply() == NOT_RUN
        until(lambda: writer.ask("SET", KEY, "again") == b"+OK\r\n", "the instance is back")
        assert writer.ask("GET", KEY) == bulk(b"again")
