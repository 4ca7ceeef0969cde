"""The end in odd moments: scripts that run for ever, stopped instances, disks that take nothing."""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from conftest import STOP_LIMIT, Threadis
from differential.wire import Connection, pack
from faults import stopped
from raw import Raw, command, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

Start = Callable[..., Threadis]
WRITES = "redis.call('set', KEYS[1], 1) while ARGV[1] == 'on' do end"
READS = "while ARGV[1] == 'on' do end"
LIBRARY = "#!lua name=lib\nredis.register_function('f', function(KEYS, ARGV) %s end)"


def connect(running: Threadis) -> Connection:
    """A plain connection."""
    return Connection(("127.0.0.1", running.port))


def begin(running: Threadis, road: str, script: str) -> Connection:
    """Run a script for ever, on one of the roads that a script can take."""
    client = connect(running)
    if road == "function":
        assert client.ask("FUNCTION", "LOAD", LIBRARY % script).text == b"lib"
        client.send(pack("FCALL", "f", 1, "k", "on"))
    elif road == "transaction":
        client.send(pack("MULTI") + pack("SET", "a", 1) + pack("EVAL", script, 2, "b", "a", "on"))
        client.send(pack("EXEC"))
    elif road == "copies":
        client.send(pack("EVAL", script, 3, "a", "b", "c", "on"))
    else:  # a worker runs it by itself, once it knows it
        for _ in range(3):
            client.ask("EVAL", script, 1, "k", "off")
        client.send(pack("EVAL", script, 1, "k", "on"))
    with closing(connect(running)) as other:
        until(lambda: other.ask("PING").raw.startswith(b"-BUSY"), "it runs too long")
    return client


def asked_to_end(running: Threadis, *words: str) -> int:
    """Send SHUTDOWN; the exit status of all."""
    with closing(connect(running)) as client:
        client.send(pack("SHUTDOWN", *words))
        status = running.process.wait(15)
    assert not running.family()
    return status


@pytest.mark.parametrize("road", ["function", "transaction", "copies", "worker"])
def test_shutdown_nosave_ends_a_script_that_has_written(
    threadis: Start, stock_server: ServerBinary, road: str
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2", "--workers", "2")
    with closing(connect(running)) as client:
        assert client.ask("CONFIG", "SET", "lua-time-limit", 50).raw == b"+OK\r\n"
        with closing(begin(running, road, WRITES)):
            for words in (["SCRIPT", "KILL"], ["FUNCTION", "KILL"]):
                assert client.ask(*words).is_error
            for words in (["SHUTDOWN"], ["SHUTDOWN", "SAVE"]):
                assert client.ask(*words).raw.startswith(b"-BUSY")
            assert asked_to_end(running, "NOSAVE") == 0


def test_a_script_is_ended_although_another_instance_is_stopped(threadis: Start) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--save", "")
    with closing(connect(running)) as client:
        assert client.ask("CONFIG", "SET", "busy-reply-threshold", 50).raw == b"+OK\r\n"
        first, second = next(keys_of(0, 2)), next(keys_of(1, 2))
        client.ask("SET", first, "value")
        with closing(connect(running)) as script:
            script.send(pack("EVAL", "while true do end", 1, first))
            until(lambda: client.ask("GET", first).raw.startswith(b"-BUSY"), "it runs")
            with stopped(running.instance_pids()[1]):
                until(lambda: client.ask("GET", second).raw.startswith(b"-TRYAGAIN"), "it is seen")
                assert client.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
                assert script.read().is_error
                assert client.ask("GET", first).text == b"value"


@pytest.mark.parametrize("words", [[], ["NOSAVE"], ["FORCE"], ["NOW"], ["SAVE", "FORCE"]])
def test_shutdown_wakes_an_instance_that_is_stopped(threadis: Start, words: list[str]) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--save", "3600 1")
    with closing(connect(running)) as client:
        client.ask("MSET", "a", 1, "b", 1, "c", 1)
        os.kill(running.instance_pids()[0], signal.SIGSTOP)
        until(lambda: "does not answer" in running.log(), "it is seen stopped")
        assert asked_to_end(running, *words) == 0
    dumps = list(running.folder.glob("instance-*/dump.rdb"))
    assert len(dumps) == (0 if words == ["NOSAVE"] else 2)


def test_shutdown_that_cannot_save_is_refused_and_all_goes_on(threadis: Start) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--save", "3600 1")
    with closing(connect(running)) as client:
        client.ask("MSET", "a", 1, "b", 1, "c", 1)
        obstacle = running.folder / "instance-1" / "dump.rdb"
        obstacle.mkdir()
        for words in ([], ["SAVE"], ["NOW"]):
            assert client.ask("SHUTDOWN", *words).raw.startswith(b"-ERR Errors trying to SHUTDOWN")
        assert client.ask("GET", "a").text == b"1"
        assert client.ask("SET", "d", 1).raw == b"+OK\r\n"
        assert asked_to_end(running, "FORCE") == 0


def test_a_stop_does_not_wait_for_who_only_waits(threadis: Start) -> None:
    """But for who is to be answered; here, by an instance that does not answer."""
    running = threadis("--instances", "2")
    there, elsewhere = (next(keys_of(at, 2)) for at in (0, 1))
    waits = [
        [b"BLPOP", there, there + b"2", b"0"],
        [b"BLMOVE", there, elsewhere, b"LEFT", b"LEFT", b"0"],
        [b"XREAD", b"BLOCK", b"0", b"STREAMS", there, b"$"],
        [b"WAIT", b"1", b"0"],
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in [*waits, "asks"]]
        for client, words in zip(clients, waits, strict=False):
            client.send(command(*words))
        with running.client() as admin:
            until(lambda: admin.info("clients")["blocked_clients"] == len(waits), "they wait")
        pid = running.instance_pids()[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            clients[-1].send(command(b"GET", elsewhere))
            running.process.send_signal(signal.SIGTERM)
            for client in clients[: len(waits)]:
                assert client.rest() == b""
            assert running.process.poll() is None
        finally:
            os.kill(pid, signal.SIGCONT)
        assert clients[-1].rest() == b"$-1\r\n"
    assert running.process.wait(STOP_LIMIT) == 0


@pytest.mark.parametrize(
    "waiting",
    [["BLPOP", "q", 0], ["BLPOP", "q", "r", "s", 0], ["XREAD", "BLOCK", 0, "STREAMS", "x", "$"]],
)
def test_a_client_that_begins_to_wait_at_a_stop_does_not_hold_it_up(
    threadis: Start, stock_server: ServerBinary, waiting: list[str | int]
) -> None:
    running = threadis("--server", str(stock_server.path), "--save", "")
    with closing(connect(running)) as client:
        assert client.ask("PING").text == b"PONG"
        client.send(pack(*waiting))
        running.process.send_signal(signal.SIGTERM)
        assert client.read_to_end() == b""
        assert running.process.wait(STOP_LIMIT) == 0
    assert "still stopping" not in running.log()
