"""DEBUG: not without leave; with it, as on one server."""

import itertools
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Threadis
from differential.conftest import INSTANCES
from differential.pair import Both, Pair, how_by_command
from differential.wire import Connection, pack
from threadis.supervisor.server import ServerBinary
from waiting import until


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def allowed(
    request: pytest.FixtureRequest,
    stock_server: ServerBinary,
    threadis: Callable[..., Threadis],
    tmp_path: Path,
) -> Iterator[Both]:
    """A bare server and thREaDIS that both allow DEBUG."""
    socket = tmp_path / "bare.sock"
    flags = ["--enable-debug-command", "yes", "--save", ""]
    bare = subprocess.Popen(
        [
            stock_server.path, "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path),
            "--logfile", str(tmp_path / "bare.log"), *flags,
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: socket.exists() or bare.poll() is not None, "the bare server listens")
        running = threadis("--server", stock_server.path, "--instances", str(INSTANCES), *flags)
        connection = Connection(str(socket))
        tips = how_by_command(connection.ask("COMMAND"))
        ours = Connection(("127.0.0.1", running.port))
        with Both(connection, ours, request.param, tips) as both:
            yield both
    finally:
        bare.terminate()
        bare.wait()


def test_it_is_refused_in_the_servers_words(pair: Pair) -> None:
    with pair.both() as both:
        both.same("DEBUG")
        both.same("DEBUG", "SLEEP", 0)
        both.same("DEBUG", "NOPE")
        both.same("CONFIG", "GET", "enable-*", how="unordered")
        both.same("CONFIG", "SET", "enable-debug-command", "yes")


def test_local_is_judged_by_the_clients_address(
    stock_server: ServerBinary, threadis: Callable[..., Threadis], tmp_path: Path
) -> None:
    socket = tmp_path / "ours.sock"
    flags = ("--enable-debug-command", "local", "--unixsocket", str(socket), "--instances", "2")
    running = threadis("--server", stock_server.path, *flags)
    for address in (("127.0.0.1", running.port), str(socket)):
        connection = Connection(address)
        assert connection.ask("DEBUG", "SET-ACTIVE-EXPIRE", "1").raw == b"+OK\r\n"
        asked = connection.ask("CONFIG", "GET", "enable-debug-command")
        assert asked.elements[1].text == b"local"
        connection.close()


def test_subcommands(allowed: Both) -> None:
    for line in (
        "DEBUG SLEEP 0.01", "DEBUG NOPE", "DEBUG SLEEP", "DEBUG SET-ACTIVE-EXPIRE 1",
        "DEBUG ERROR 'MINE it is'", "DEBUG PROTOCOL string", "DEBUG PROTOCOL double",
        "DEBUG PROTOCOL map", "DEBUG PROTOCOL verbatim",
        "DEBUG PROTOCOL null", "DEBUG PROTOCOL nope", "DEBUG OBJECT none", "DEBUG OBJECT",
        "DEBUG RELOAD NOPE", "DEBUG POPULATE x", "DEBUG POPULATE -1", "DEBUG POPULATE 1 p x",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 100b", "DEBUG QUICKLIST-PACKED-THRESHOLD 0",
        "DEBUG CHANGE-REPL-ID", "DEBUG REPLYBUFFER PEAK-RESET-TIME 100",
    ):  # fmt: skip
        allowed.same_line(line)
    for word in ("SEGFAULT", "PANIC", "OOM", "RESTART"):
        assert allowed.ours.ask("DEBUG", word).is_error
    assert allowed.ours.ask("PING").raw == b"+PONG\r\n"


def test_reload_and_digest(allowed: Both) -> None:
    empty = allowed.same("DEBUG", "DIGEST")
    assert empty.raw == b"+" + b"0" * 40 + b"\r\n"
    allowed.same("SELECT", 9)
    allowed.same("DEBUG", "POPULATE", 3000, "p", 20)
    allowed.same("DEBUG", "POPULATE", 100)
    allowed.same("DBSIZE")
    allowed.same("GET", "p:2999")
    allowed.same("GET", "key:7")
    for number in range(50):
        allowed.same("RPUSH", f"l:{number}", *range(number + 1))
        allowed.same("ZADD", f"z:{number}", 1.5, "a", number, "b")
    before = allowed.same("DEBUG", "DIGEST")
    allowed.same("DEBUG", "RELOAD")
    assert allowed.same("DEBUG", "DIGEST") == before
    allowed.same("DEBUG", "DIGEST-VALUE", "l:1", "none", "z:1", "p:1")
    allowed.same("DEBUG", "DIGEST-VALUE")
    allowed.same("LRANGE", "l:30", 0, -1)
    allowed.same("DEL", "l:1")
    assert allowed.same("DEBUG", "DIGEST") != before


def test_push_and_attributes(allowed: Both) -> None:
    if allowed.same("DEBUG", "PROTOCOL", "attrib").kind == "|":
        allowed.same_bytes(b"", 1)
    if allowed.same("DEBUG", "PROTOCOL", "push").kind == ">":
        allowed.same_bytes(b"", 1)  # the reply proper, behind the push
    allowed.same("PING")


def test_who_slept_is_awake(allowed: Both) -> None:
    """Meanwhile the supervisor takes the instances for stopped."""
    for _ in range(2):
        allowed.same("DEBUG", "SLEEP", "1.6")
        allowed.same("ACL", "SETUSER", "someone")
        allowed.same("MSET", "a", "1", "b", "2", "c", "3", "d", "4")


def test_a_sleep_holds_up_every_client(allowed: Both) -> None:
    """Also one whose commands need no instance."""
    for side in (allowed.bare, allowed.ours):
        with closing(Connection(side.socket.getpeername())) as other:
            side.send(pack("DEBUG", "SLEEP", "0.5"))
            longest, rounds = 0.0, itertools.count()
            while not select.select([side.socket], [], [], 0)[0]:
                began = time.monotonic()
                other.ask("PING")
                other.ask("SELECT", next(rounds) % 2)
                longest = max(longest, time.monotonic() - began)
            assert side.read().raw == b"+OK\r\n"
            assert longest > 0.25  # it begins a little later, and is answered when all have slept
