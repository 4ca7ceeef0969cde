"""A bare stock server and thREaDIS over four instances of the same binary, side by side."""

import contextlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Threadis
from differential.listening import Listener
from differential.pair import Both, Pair
from differential.wire import Connection
from threadis import _core
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
SLOTS = 16384
DATABASES = 16


@contextlib.contextmanager
def running_pair(stock_server: ServerBinary, folder: Path, *options: str) -> Iterator[Pair]:
    """Both servers, ours with these flags besides the usual ones."""
    socket = folder / "bare.sock"
    bare = subprocess.Popen(
        [
            stock_server.path, "--port", "0", "--unixsocket", str(socket), "--save", "",
            "--dir", str(folder), "--logfile", str(folder / "bare.log"),
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    running = None
    try:
        flags = ["--server", stock_server.path, "--instances", str(INSTANCES), "--workers", "2"]
        running = Threadis(folder / "data", folder / "serve.log", [*flags, "--save", "", *options])
        until(lambda: socket.exists() or bare.poll() is not None, "the bare server listens")
        assert bare.poll() is None, (folder / "bare.log").read_text()
        running.wait_until_serving()
        yield Pair.of(str(socket), running, stock_server)
    finally:
        if running:
            running.close()
        bare.terminate()
        bare.wait()


@pytest.fixture(scope="session")
def pair(stock_server: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers, for all tests with this binary."""
    with running_pair(stock_server, tmp_path_factory.mktemp("pair")) as found:
        yield found


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request: pytest.FixtureRequest) -> int:
    """Both protocols."""
    number: int = request.param
    return number


@pytest.fixture(autouse=True)
def empty(pair: Pair) -> Iterator[None]:
    """Each test begins with nothing, and ends with every key where it belongs."""
    pair.flush()
    yield
    check_placement(pair.threadis)


def check_placement(running: Threadis, placed: _core.Placement | None = None) -> None:
    """Count the keys that SCAN shows by the instance that should own them, and ask INFO."""
    connection = Connection(("127.0.0.1", running.port))
    try:
        owners: Counter[int] = Counter()
        for db in range(DATABASES):
            connection.ask("SELECT", db)
            for key in scan(connection):
                connection.ask("PERSIST", key)  # nothing expires between two looks
            keys = scan(connection)
            owners.update(placed.instance(db, key) if placed else owner(key) for key in keys)
            for at in range(0, len(keys), 1000):  # EXISTS asks the owner, SCAN asked everybody
                part = keys[at : at + 1000]
                assert connection.ask("EXISTS", *part).number == len(part), f"lost: {part}"
        wanted = {index: owners[index] for index in range(INSTANCES)}
        # Of an instance that is at work INFO may tell what was a moment ago
        until(lambda: counted(connection) == wanted, "INFO counts the keys of each instance")
    finally:
        connection.close()


def counted(connection: Connection) -> dict[int, int]:
    """The keys of each instance, as INFO shows them."""
    info = connection.ask("INFO", "threadis").text.decode()
    found = re.findall(r"^instance(\d+):.*,keys=(\d+)\r?$", info, re.MULTILINE)
    return {int(index): int(keys) for index, keys in found}


def owner(key: bytes) -> int:
    """The instance that should have a key: the slots are split evenly."""
    return _core.slot(key) * INSTANCES // SLOTS


def scan(connection: Connection, *options: bytes) -> list[bytes]:
    """All keys that SCAN shows, in its order."""
    found: list[bytes] = []
    cursor = b"0"
    while True:
        reply = connection.ask("SCAN", cursor, "COUNT", 1000, *options)
        cursor = reply.elements[0].text
        found.extend(key.text for key in reply.elements[1].elements)
        if cursor == b"0":
            return found


@pytest.fixture
def words() -> list[bytes]:
    """The words of a real dictionary, from the package wamerican."""
    path = Path("/usr/share/dict/american-english")
    if not path.exists():
        pytest.skip("the dictionary of the Debian package wamerican is not installed")
    return path.read_bytes().split()


@pytest.fixture
def main(pair: Pair) -> Iterator[Both]:
    """A client for whose commands there are events."""
    with pair.both() as both:
        both.same("CONFIG", "SET", "notify-keyspace-events", "KEA")
        yield both
        both.same("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.fixture
def listener(pair: Pair, main: Both) -> Iterator[Listener]:
    """Who hears of them."""
    del main
    listener = Listener(pair)
    yield listener
    listener.close()
