"""Scripts and functions are on every instance, and take no more room than they may."""

import hashlib
import os
import signal
from collections.abc import Callable
from contextlib import closing

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from raw import keys_of
from threadis.coordinator.lua import library, script_cache
from threadis.supervisor.server import ServerBinary
from waiting import until

Start = Callable[..., Threadis]
LIBRARY = "#!lua name=%s\nredis.register_function('%s', function() return '%s' end)"


def sha1(script: str) -> bytes:
    """A script's name."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


LOADED = sha1("return 'loaded'")


def connect(running: Threadis) -> Connection:
    """A plain connection."""
    return Connection(("127.0.0.1", running.port))


def restart(running: Threadis, index: int, client: Connection, key: bytes) -> None:
    """Kill an instance, and wait for the next one."""
    os.kill(running.instance_pids()[index], signal.SIGKILL)
    until(lambda: not client.ask("GET", key).is_error, "it serves again")


def names(kept: script_cache.ScriptCache, scripts: list[bytes]) -> list[bytes]:
    """Those that are kept, without using them."""
    return [one for one in scripts if one in kept.all()]


def test_scripts_of_eval_make_room_by_number_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[bytes] = set()
    monkeypatch.setattr(script_cache, "EVICTING_COUNT", 3)
    kept = script_cache.ScriptCache(lambda name: name in used)
    kept.evicts_by_count(True)
    scripts = [b"script %d" % number for number in range(6)]
    kept.load(b"loaded", b"loaded")
    for script in scripts[:3]:
        assert kept.evaluate(script, script) == []
    kept.use(scripts[0])
    used.add(scripts[1])  # by a worker
    assert kept.evaluate(scripts[3], scripts[3]) == [(scripts[2], scripts[2])]
    assert names(kept, scripts) == [scripts[0], scripts[1], scripts[3]]
    monkeypatch.setattr(script_cache, "EVAL_BYTES", 1000)
    used.clear()
    big = b"x" * 700
    assert [name for name, _ in kept.evaluate(b"big", big)] == [scripts[0], scripts[3], scripts[1]]
    assert kept.evaluate(b"too big", b"x" * 1000) == [(b"big", big), (b"too big", b"x" * 1000)]
    assert (len(kept), kept.evicted, kept.total()) == (1, 6, script_cache.cost(b"loaded"))
    assert kept.use(b"loaded") == b"loaded"


def test_scripts_that_are_all_in_use_make_room_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script_cache, "COUNT", 2)
    kept = script_cache.ScriptCache(lambda _: True)
    for number in range(5):
        kept.evaluate(b"%d" % number, b"script")
    assert (len(kept), kept.evicted) == (2, 3)


def test_what_is_evicted_is_freed_on_the_instances_too(
    threadis: Start, stock_server: ServerBinary
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2", "--save", "")
    with closing(connect(running)) as client:

        def in_use() -> int:
            text = client.ask("INFO", "memory").text.decode()
            return int(text.partition("used_memory_scripts_eval:")[2].split()[0])

        padding = "--" + "x" * 1_000_000
        first = f"return 0 {padding}"
        assert client.ask("SCRIPT", "LOAD", "return 'loaded'").text == LOADED
        for number in range(170):
            script = f"return {number} {padding}"
            assert client.ask("EVAL", script, 0).number == number
            assert client.ask("EVALSHA", sha1(script), 1, "k" * (number + 1)).number == number
        assert client.ask("EVALSHA", sha1("return 'loaded'"), 0).text == b"loaded"
        assert client.ask("EVALSHA", sha1(first), 0).raw.startswith(b"-NOSCRIPT")
        assert client.ask("SCRIPT", "EXISTS", sha1(first)).raw == b"*1\r\n:0\r\n"
        most = script_cache.EVAL_BYTES * 2 + library.GARBAGE_BYTES + 10_000_000
        assert 60_000_000 < in_use() < 2 * most  # two instances


def test_script_load_is_refused_above_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_cache, "LOAD_BYTES", 1000)
    kept = script_cache.ScriptCache(lambda _: False)
    assert kept.may_load(b"a", b"x" * 700)
    kept.load(b"a", b"x" * 700)
    assert not kept.may_load(b"b", b"x" * 700)
    assert kept.may_load(b"a", b"x" * 700)
    kept.clear()
    assert kept.may_load(b"b", b"x" * 700)


def test_an_instance_that_restarts_has_all_scripts_and_functions(
    threadis: Start, stock_server: ServerBinary
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2", "--save", "")
    key = next(keys_of(1, 2))
    with closing(connect(running)) as client:
        for name in ("a", "b", "c"):
            assert (
                client.ask("FUNCTION", "LOAD", LIBRARY % (name, name, name)).text == name.encode()
            )
        client.ask("SCRIPT", "LOAD", "return 'loaded'")
        client.ask("EVAL", "return 'evaluated'", 0)
        restart(running, 1, client, key)
        assert client.ask("FUNCTION", "DELETE", "b").raw == b"+OK\r\n"
        restart(running, 1, client, key)
        for name in ("a", "c"):
            assert client.ask("FCALL", name, 1, key).text == name.encode()
        assert client.ask("FCALL", "b", 1, key).is_error
        for what in ("loaded", "evaluated"):
            assert client.ask("EVALSHA", sha1(f"return '{what}'"), 1, key).text == what.encode()


def test_without_one_instance_scripts_go_on_and_functions_are_not_changed(threadis: Start) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--save", "")
    here, there = next(keys_of(0, 2)), next(keys_of(1, 2))
    with closing(connect(running)) as client:
        assert client.ask("FUNCTION", "LOAD", LIBRARY % ("a", "a", "a")).text == b"a"
        with stopped(running.instance_pids()[1]):
            until(lambda: client.ask("GET", there).raw.startswith(b"-TRYAGAIN"), "it is seen")
            for words in (
                ["FUNCTION", "LOAD", LIBRARY % ("b", "b", "b")],
                ["FUNCTION", "DELETE", "a"],
                ["FUNCTION", "FLUSH"],
                ["SCRIPT", "FLUSH"],
            ):
                assert client.ask(*words).raw.startswith(b"-TRYAGAIN")
            assert client.ask("FCALL", "a", 1, here).text == b"a"
            assert client.ask("FCALL", "b", 1, here).is_error
            assert client.ask("EVAL", "return 'new'", 1, here).text == b"new"
            assert client.ask("SCRIPT", "LOAD", "return 'loaded'").text == LOADED
        until(lambda: not client.ask("GET", there).is_error, "it is back")
        for what in ("new", "loaded"):
            assert client.ask("EVALSHA", sha1(f"return '{what}'"), 1, there).text == what.encode()
        client.send(pack("FUNCTION", "LOAD", LIBRARY % ("b", "b", "b")))
        assert client.read().text == b"b"
        assert client.ask("FCALL", "b", 1, there).text == b"b"


def instance(running: Threadis, index: int) -> Connection:
    """A connection to an instance itself, as nobody has it."""
    with closing(connect(running)) as client:
        line = client.ask("INFO", "threadis").text.decode().split(f"\ninstance{index}:")[1]
    return Connection(line.split("socket=")[1].split(",")[0])


def libraries(running: Threadis, index: int) -> set[bytes]:
    """What an instance itself has."""
    with closing(instance(running, index)) as there:
        return {one.elements[1].text for one in there.ask("FUNCTION", "LIST").elements}


def test_functions_that_differ_between_instances_are_the_same_after_a_start(
    threadis: Start, stock_server: ServerBinary
) -> None:
    flags = ["--server", stock_server.path, "--instances", "2"]
    running = threadis(*flags)
    with closing(connect(running)) as client:
        for name in ("one", "two"):
            assert not client.ask("FUNCTION", "LOAD", LIBRARY % (name, name, name)).is_error
    with closing(instance(running, 0)) as there:  # as after a loss of power, say
        assert not there.ask("FUNCTION", "DELETE", "one").is_error
    assert (libraries(running, 0), libraries(running, 1)) == ({b"two"}, {b"one", b"two"})
    assert running.stop() == 0
    again = threadis(*flags, folder=running.folder)
    assert libraries(again, 0) == libraries(again, 1) == {b"one", b"two"}
    assert "instance 0 had other functions than instance 1" in again.log()
    again.stop()


@pytest.mark.parametrize("replace", [False, True])
def test_a_library_that_one_instance_refuses_is_nowhere(
    threadis: Start, stock_server: ServerBinary, replace: bool
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2")
    with closing(instance(running, 1)) as there:  # another library has a function of that name
        assert not there.ask("FUNCTION", "LOAD", LIBRARY % ("other", "f", "old")).is_error
    words = ["FUNCTION", "LOAD", *(["REPLACE"] if replace else []), LIBRARY % ("new", "f", "new")]
    with closing(connect(running)) as client:
        assert client.ask(*words).raw.startswith(b"-ERR Function f already exists")
    found = libraries(running, 0)
    # Without knowing better, all are made as the one that has refused.
    assert found == (libraries(running, 1) if replace else set())
    assert b"new" not in found
