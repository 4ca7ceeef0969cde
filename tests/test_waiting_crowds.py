"""Many clients that wait for keys of their own: how often instances are asked because of them."""

import re
from collections.abc import Callable, Iterator

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from waiting import until

CROWD = 400
Start = Callable[..., Threadis]


@pytest.fixture
def running(threadis: Start) -> Iterator[Threadis]:
    """Two instances."""
    yield threadis("--instances", "2", "--workers", "1", "--save", "")


@pytest.fixture
def main(running: Threadis) -> Iterator[Connection]:
    """The client that looks, and feeds."""
    connection = Connection(("127.0.0.1", running.port))
    yield connection
    connection.close()


@pytest.fixture
def crowd(running: Threadis) -> Iterator[list[Connection]]:
    """Clients, connected."""
    crowd = [Connection(("127.0.0.1", running.port)) for _ in range(CROWD)]
    for client in crowd:
        assert client.ask("PING").raw == b"+PONG\r\n"
    yield crowd
    for client in crowd:
        client.close()


def number(main: Connection, field: str) -> int:
    """The sum of a field of INFO."""
    text = main.ask("INFO", "everything").text.decode()
    return sum(map(int, re.findall(rf"\b{field}[:=](\d+)", text)))


def let_wait(
    running: Threadis, main: Connection, crowd: list[Connection], commands: list[tuple[str, ...]]
) -> None:
    """All begin to wait in the same moment."""
    with stopped(running.proxy_pid()):
        for client, words in zip(crowd, commands, strict=True):
            client.send(pack(*words))
    until(lambda: number(main, "blocked_clients") == len(crowd), "all wait")


WAITS: list[tuple[str, ...]] = [
    ("BLPOP", "k{}", "0"),
    ("BZPOPMIN", "k{}", "75.5"),
    ("BLMOVE", "k{}", "to{}", "LEFT", "RIGHT", "0"),
    ("BRPOPLPUSH", "k{}", "to{}", "0"),
]


@pytest.mark.parametrize("words", WAITS, ids=lambda words: words[0])
def test_who_comes_together_is_looked_for_together(
    running: Threadis, main: Connection, crowd: list[Connection], words: tuple[str, ...]
) -> None:
    """An instance is asked for what many want in a few messages, not each in one of its own."""
    before = number(main, "reads")
    commands = [tuple(word.format(at) for word in words) for at in range(CROWD)]
    let_wait(running, main, crowd, commands)
    until(lambda: number(main, "threadis_armed_keys") == CROWD, "all are armed")
    assert number(main, "reads") - before < CROWD
