"""Clients that close their connection without having read: what they have sent is run."""

from collections.abc import Callable, Iterator

import pytest

from conftest import Threadis
from raw import Raw, command, keys_of, resident
from threadis.supervisor.server import ServerBinary
from waiting import until

pytestmark = pytest.mark.sample

HERE, THERE = (next(keys_of(index, 2)).decode() for index in range(2))
INCR = "return redis.call('incr', KEYS[1])"
# Replies that no socket takes, so that the commands behind them are kept.
FILLER = command("ECHO", "x" * 2000)
COUNTED = command("INCR", HERE)
BOTH = [command("SET", THERE, "x"), command("COPY", THERE, f"{{{HERE}}}copy", "REPLACE")]
# How often, and what is sent.
ROADS = {
    "worker": (10_000, [COUNTED]),
    "transaction": (5_000, [command("MULTI"), COUNTED, command("EXEC")]),
    "commit": (5_000, [command("MULTI"), COUNTED, command("INCR", THERE), command("EXEC")]),
    "script": (5_000, [command("EVAL", INCR, 1, HERE)]),
    "coordinator": (200, [*BOTH, COUNTED]),
    "waiting": (5_000, [command("RPUSH", "list", "x"), command("BLPOP", "list", 0), COUNTED]),
}


@pytest.fixture
def running(threadis: Callable[..., Threadis], stock_server: ServerBinary) -> Threadis:
    return threadis(
        "--server", str(stock_server.path), "--instances", "2", "--workers", "2", "--save", "",
    )  # fmt: skip


@pytest.fixture
def writer(running: Threadis) -> Iterator[Raw]:
    with Raw(("127.0.0.1", running.port)) as client:
        yield client


def write_all(client: Raw, content: bytes) -> None:
    """Write without reading, until the other side's kernel has everything."""
    client.socket.sendall(content)
    until(client.is_sent, "everything is sent")


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("end", ["half-closed", "closed", "reset"])
def test_all_that_was_sent_is_run(running: Threadis, writer: Raw, road: str, end: str) -> None:
    count, commands = ROADS[road]
    # Ten megabytes or more of replies.
    filler = FILLER * max(1, 5_000 // count)
    write_all(writer, (b"".join(commands) + filler) * count)
    if end == "half-closed":
        writer.half_close()
    elif end == "closed":
        writer.socket.close()
    else:
        writer.reset()
    with running.client() as client:
        until(lambda: client.get(HERE) == str(count).encode(), "everything was run")
        writer.socket.close()
        until(lambda: len(client.client_list()) == 1, "the connection is gone")


def test_what_stands_behind_a_wait_is_not_run(running: Threadis, writer: Raw) -> None:
    write_all(
        writer, FILLER * 5_000 + command("BLPOP", "nothing", 0) + command("INCR", HERE)
    )  # the stock server closes who waits and has left
    writer.reset()
    with running.client() as client:
        until(lambda: len(client.client_list()) == 1, "the connection is gone")
        assert client.get(HERE) is None


def test_replies_for_nobody_cost_no_memory(running: Threadis, writer: Raw) -> None:
    size = 1_000_000
    with running.client() as client:
        client.set("large", b"x" * size)
        before = resident(running.proxy_pid())
        write_all(writer, command("GET", "large") * 500 + command("INCR", HERE))
        writer.reset()
        until(lambda: client.get(HERE) == b"1", "everything was run")
        assert resident(running.proxy_pid()) - before < 100 * size
