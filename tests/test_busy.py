"""A script that runs for too long: whoever needs its instance is told BUSY, by old connections of
ours and by new ones, and these are in the right database afterwards.
"""

import os
import signal
from collections.abc import Callable

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from raw import cpu_seconds, keys_of
from threadis.server import Server
from waiting import until

FOREVER = "while true do end"


def test_connections_while_a_script_runs(
    threadis: Callable[..., Threadis], stock_server: Server
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")

    def connect(db: int) -> Connection:
        connection = Connection(("127.0.0.1", running.port))
        assert connection.ask("SELECT", db).raw == b"+OK\r\n"
        return connection

    first, other, script = connect(0), connect(5), connect(5)
    assert first.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    assert first.ask("SET", "{k}", "1").raw == b"+OK\r\n"
    script.send(pack("EVAL", FOREVER, 1, "k"))  # k is locked, and our link is in database 5
    until(lambda: first.ask("GET", "{k}").raw.startswith(b"-BUSY"), "it runs")
    assert other.ask("GET", "k").raw.startswith(b"-BUSY")
    fresh = connect(7)
    assert fresh.ask("GET", "k").raw.startswith(b"-BUSY")
    assert fresh.ask("BLPOP", "{k}list", 1).raw.startswith(b"-BUSY")
    assert first.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    for connection, text in ((first, b"zero"), (other, b"five"), (fresh, b"seven")):
        assert connection.ask("RPUSH", "{k}list", text).number == 1
        assert connection.ask("BLPOP", "{k}list", 1).elements[1].text == text
    for connection in (first, other, script, fresh):
        connection.close()


def test_config_set_is_answered_while_a_script_runs_and_somebody_tracks(
    threadis: Callable[..., Threadis], stock_server: Server
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2", "--save", "")
    tracks, admin, script = (Connection(("127.0.0.1", running.port)) for _ in range(3))
    assert tracks.ask("HELLO", 3).raw.startswith(b"%")
    assert tracks.ask("CLIENT", "TRACKING", "ON").raw == b"+OK\r\n"
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    script.send(pack("EVAL", FOREVER, 1, "foo"))
    change = ("CONFIG", "SET", "maxmemory-samples", "6")
    until(lambda: admin.ask(*change).raw.startswith(b"-BUSY"), "it runs")
    assert admin.ask(*change).raw.startswith(b"-BUSY")
    assert admin.ask("PING").raw.startswith(b"-BUSY")
    assert admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    assert admin.ask("CONFIG", "SET", "maxmemory-samples", "6").raw == b"+OK\r\n"
    assert "Traceback" not in running.log()
    for connection in (tracks, admin, script):
        connection.close()


READS = "redis.pcall('GET', 'a') redis.pcall('GET', 'b') redis.pcall('GET', 'c') "


@pytest.mark.parametrize(
    "call",
    [("EVAL", 0), ("EVAL", 1, "k"), ("EVAL", 2, "k", "{c}k"), ("EVAL_RO", 0), ("EVAL_RO", 1, "k")],
    ids=str,
)
def test_a_script_that_is_killed_is_not_run_again(
    threadis: Callable[..., Threadis], stock_server: Server, call: tuple[str | int, ...]
) -> None:
    """Although it touches keys that are not declared, and on several instances."""
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")
    admin, script = (Connection(("127.0.0.1", running.port)) for _ in range(2))
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    name, *keys = call
    script.send(pack(name, READS + FOREVER, *keys))
    until(lambda: admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n", "it is killed")
    reply = script.read()
    assert reply.is_error
    assert b"Script killed by user" in reply.raw
    assert admin.ask("SCRIPT", "KILL").raw.startswith(b"-NOTBUSY")
    assert script.ask("MGET", "a", "b", "c").raw == b"*3\r\n" + b"$-1\r\n" * 3
    admin.close()
    script.close()


def test_a_script_of_one_who_tracks_has_run_although_another_instance_is_lost(
    threadis: Callable[..., Threadis], stock_server: Server
) -> None:
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1", "--save", ""]
    running = threadis(*flags)
    key = next(keys_of(0, 2)).decode()
    script = "for i = 1, 3e7 do local n = i end return redis.call('incr', KEYS[1])"
    works, other = running.instance_pids()
    client = Connection(("127.0.0.1", running.port))
    assert not client.ask("HELLO", "3").is_error
    assert client.ask("CLIENT", "TRACKING", "ON").raw == b"+OK\r\n"
    before = cpu_seconds(works)
    client.send(pack("EVAL", script, "1", key))
    until(lambda: cpu_seconds(works) > before + 0.05, "the script runs")
    with stopped(running.process.pid):  # it starts no other
        os.kill(other, signal.SIGKILL)
        assert client.read().number == 1
    client.close()
