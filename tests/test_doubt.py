"""Keys of a write over several instances whose end nobody knows fail fast; all others go on."""

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from conftest import Threadis
from faults import stopped
from raw import Raw, command, cpu_seconds, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 3
A, B, C = (next(keys_of(index, INSTANCES)).decode() for index in range(INSTANCES))
IN_DOUBT = (
    b"-TRYAGAIN a write over several instances to this key is in doubt until instance %d is back; "
    b"the command was not run\r\n"
)
LONG = 400_000  # elements: to look through all takes a server some milliseconds


@pytest.fixture
def running(threadis: Callable[..., Threadis], stock_server: ServerBinary) -> Threadis:
    return threadis(
        "--server", str(stock_server.path), "--instances", str(INSTANCES), "--workers", "2",
        "--save", "", "--appendonly", "yes", "--set", "appendfsync=always",
    )  # fmt: skip


def ask(running: Threadis, *words: str) -> bytes:
    with Raw(("127.0.0.1", running.port)) as client:
        return client.ask(*words)


def locks(running: Threadis) -> int:
    with running.client() as client:
        found: int = client.info("threadis")["threadis_locks"]
    return found


def is_in_doubt(running: Threadis) -> bool:
    with contextlib.suppress(OSError, EOFError):  # the proxy was killed
        return ask(running, "GET", B) == IN_DOUBT % 0
    return False


NAMING: list[list[str]] = [
    ["SET", B, "x"], ["MSET", B, "x", C, "x"], ["DEL", B, C], ["MGET", B, C], ["RENAME", B, C],
    ["EVAL", "return redis.call('get', KEYS[1])", "1", B], ["LPOP", B], ["BLPOP", B, C, "0"],
    ["SUNION", B, C], ["COPY", C, B], ["SETRANGE", B, "0", "x" * 100_000], ["DBSIZE"],
]  # fmt: skip


def test_a_record_that_nobody_can_read_locks_nothing_for_ever(running: Threadis) -> None:
    """Whatever goes wrong with settling a write, its keys are free then, and the log says what."""
    socket = ask(running, "INFO", "threadis").split(b"\ninstance1:")[1].split(b"socket=")[1]
    assert ask(running, "MSET", A, "old", B, "old") == b"+OK\r\n"
    with Raw(("127.0.0.1", running.port)) as writer, Raw(socket.split(b",")[0].decode()) as there:
        assert there.ask("SELECT", 16) == b"+OK\r\n"
        with stopped(running.instance_pids()[0]):
            writer.send(command("MSET", A, "new", B, "new"))
            until(lambda: is_in_doubt(running), "the key is in doubt")
            record = there.ask("KEYS", "*").split(b"\r\n")[2]
            assert there.ask("SET", record, "what nobody has written") == b"+OK\r\n"
        writer.reply()
    until(lambda: locks(running) == 0, "the keys are free")
    assert ask(running, "MSET", A, "last", B, "last") == b"+OK\r\n"
    assert "a record of a write to several instances failed" in running.log()


@pytest.mark.parametrize("restarted", [False, True], ids=["", "the proxy is new"])
def test_the_instance_that_decides_hangs(running: Threadis, *, restarted: bool) -> None:
    assert ask(running, "MSET", A, "old", B, "old", C, "c") == b"+OK\r\n"
    with Raw(("127.0.0.1", running.port)) as writer:
        with stopped(running.instance_pids()[0]):
            writer.send(command("MSET", A, "new", B, "new"))
            until(lambda: is_in_doubt(running), "the key is in doubt")
            if restarted:
                proxy = running.proxy_pid()
                os.kill(proxy, signal.SIGKILL)
                until(lambda: running.proxy_pids() not in ([], [proxy]), "another proxy")
                until(lambda: is_in_doubt(running), "it knows, too")
            assert ask(running, "GET", A).startswith(b"-TRYAGAIN ")
            assert ask(running, "GET", C) == b"$1\r\nc\r\n"
            for words in NAMING:
                assert ask(running, *words).startswith(b"-TRYAGAIN "), words
            with Raw(("127.0.0.1", running.port)) as client:
                client.send(b"".join([command("MULTI"), command("GET", B), command("EXEC")]))
                assert [client.reply() for _ in range(3)][2] == IN_DOUBT % 0
                client.send(b"".join(command(*words) for words in NAMING[:3]))
                assert [client.reply() for _ in range(3)] == [IN_DOUBT % 0] * 3
            assert ask(running, "ACL", "SETUSER", "bob") == b"+OK\r\n"
        until(lambda: ask(running, "GET", B) == b"$3\r\nnew\r\n", "it has decided")
        whole = b"*3\r\n$3\r\nnew\r\n$3\r\nnew\r\n$1\r\nc\r\n"
        until(lambda: ask(running, "MGET", A, B, C) == whole, "the instance is back")
    until(lambda: locks(running) == 0, "nothing is locked")


def test_what_fails_in_doubt_watches_nothing_any_more(running: Threadis) -> None:
    """EXEC ends WATCH whatever it is told, and a WATCH that fails has not begun."""
    assert ask(running, "MSET", A, "old", B, "old", C, "1") == b"+OK\r\n"
    one_key = [("INCR", C)]
    by_the_coordinator = [*one_key, ("SELECT", "0")]
    address = ("127.0.0.1", running.port)
    with Raw(address) as writer, stopped(running.instance_pids()[0]):
        writer.send(command("MSET", A, "new", B, "new"))
        until(lambda: is_in_doubt(running), "the key is in doubt")
        for later in (one_key, by_the_coordinator):
            for words in (("GET", B), ("MGET", B, C)):
                with Raw(address) as client:
                    assert client.ask("WATCH", C) == b"+OK\r\n"
                    ask(running, "INCR", C)
                    assert executed(client, words).endswith(IN_DOUBT % 0)
                    assert executed(client, *later).startswith(b"*%d" % len(later)), (words, later)
                    assert client.ask("WATCH", C) == b"+OK\r\n"
                    ask(running, "INCR", C)
                    assert executed(client, *later) == b"*-1\r\n"
            with Raw(address) as client:
                assert client.ask("WATCH", C, A).startswith(b"-TRYAGAIN ")
                ask(running, "INCR", C)
                assert executed(client, *later).startswith(b"*%d" % len(later)), later
        with Raw(address) as client:
            assert client.ask("WATCH", C) == b"+OK\r\n"
            assert client.ask("WATCH", A).startswith(b"-TRYAGAIN ")
            ask(running, "INCR", C)
            assert executed(client, *one_key) == b"*-1\r\n"
    until(lambda: locks(running) == 0, "nothing is locked")


def executed(client: Raw, *queued: tuple[str, ...]) -> bytes:
    """What EXEC is told of these."""
    client.send(b"".join(command(*words) for words in (("MULTI",), *queued, ("EXEC",))))
    return [client.reply() for _ in range(len(queued) + 2)][-1]


def test_one_that_has_promised_hangs(running: Threadis) -> None:
    """Only its own keys are in doubt: what the others have done is seen at once."""
    numbers = [str(number) for number in range(LONG)]
    assert ask(running, "RPUSH", A, *numbers) == b":%d\r\n" % LONG
    decides, promises = running.instance_pids()[:2]
    before = cpu_seconds(decides)
    slow = [command("LPOS", A, "none")] * 100
    transaction = [command("MULTI"), *slow, command("LPUSH", A, "new"), command("SET", B, "new")]
    with Raw(("127.0.0.1", running.port)) as writer:
        writer.send(b"".join([*transaction, command("EXEC")]))
        until(lambda: cpu_seconds(decides) > before + 0.05, "it decides")
        with stopped(promises):
            assert [writer.reply() for _ in range(103)][1:] == [b"+QUEUED\r\n"] * 102
            assert b"it will be completed when it is back" in writer.reply()
            assert ask(running, "LINDEX", A, "0") == b"$3\r\nnew\r\n"
            assert ask(running, "SET", C, "c") == b"+OK\r\n"
            assert ask(running, "GET", B).startswith(b"-TRYAGAIN ")
        until(lambda: ask(running, "GET", B) == b"$3\r\nnew\r\n", "it is completed")
    until(lambda: locks(running) == 0, "nothing is locked")
