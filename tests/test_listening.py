"""Whoever listens to what instances tell, an instance that tells nothing more holds nobody up."""

from collections.abc import Callable
from typing import Final

import pytest

from conftest import Threadis
from faults import stopped
from raw import Raw, command, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES: Final = 3
HEALTHY, STOPPED = (next(keys_of(index, INSTANCES)) for index in (0, INSTANCES - 1))
LISTENERS: Final = {
    "tracks": (("HELLO", "3"), ("CLIENT", "TRACKING", "ON"), ("GET", HEALTHY)),
    "tracks everything": (("HELLO", "3"), ("CLIENT", "TRACKING", "ON", "BCAST")),
    "events": (("PSUBSCRIBE", "__key*"),),
    "monitor": (("MONITOR",),),
}  # fmt: skip
BLOCKED: Final = ("BLPOP", STOPPED + b"list", HEALTHY + b"list", "0")
CASES: Final = [
    *((listener, "FLUSHALL") for listener in [*LISTENERS, "blocked"]),
    ("tracks", "MSET"),
]
WRITES: Final = {"FLUSHALL": ("FLUSHALL",), "MSET": ("MSET", HEALTHY, "1", STOPPED, "1")}


@pytest.mark.parametrize(("listener", "write"), CASES)
def test_an_instance_that_is_stopped_holds_up_none_but_its_own(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, listener: str, write: str
) -> None:
    flags = ["--server", stock_server.path, "--instances", str(INSTANCES), "--save", ""]
    running = threadis(*flags, "--set", "notify-keyspace-events=KEA")
    address = ("127.0.0.1", running.port)
    with Raw(address) as listens, Raw(address) as writer, Raw(address) as other:
        assert other.ask("SET", HEALTHY, "old") == b"+OK\r\n"
        for words in LISTENERS.get(listener, ()):
            assert not listens.ask(*words).startswith(b"-")
        if listener == "blocked":
            listens.send(command(*BLOCKED))
            until(lambda: b"blocked_clients:1" in other.ask("INFO", "clients"), "it waits")
        with stopped(running.instance_pids()[-1]):
            writer.send(command(*WRITES[write]))
            assert not other.ask("GET", HEALTHY).startswith(b"-ERR")
            assert not other.ask("SET", HEALTHY, "new").startswith(b"-ERR")
            assert writer.reply().startswith(b"-")
