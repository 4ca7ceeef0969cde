"""What has been decided is done although an instance takes no writes for now."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from faults import DURABLE, stopped
from raw import Raw, command, keys_of
from test_records import hidden
from threadis.supervisor.server import ServerBinary
from waiting import until

A, B = (next(keys_of(index, 2)).decode() for index in range(2))


@pytest.fixture
def running(threadis: Callable[..., Threadis], stock_server: ServerBinary) -> Threadis:
    return threadis(
        "--server", str(stock_server.path), "--instances", "2", "--save", "3600 1000000", *DURABLE,
    )  # fmt: skip


def socket_of(running: Threadis, index: int) -> str:
    """Where an instance listens."""
    with Raw(("127.0.0.1", running.port)) as client:
        about = client.ask("INFO", "threadis").split(b"\ninstance%d:" % index)[1]
    return about.split(b"socket=")[1].split(b",")[0].decode()


def lacks_replicas(there: Raw, folder: Path) -> None:
    """Let it refuse writes: it wants a replica."""
    assert there.ask("CONFIG", "SET", "min-replicas-to-write", "1") == b"+OK\r\n"


def fails_to_save(there: Raw, folder: Path) -> None:
    """Let it refuse writes: its snapshot could not be put where it belongs."""
    (folder / "dump.rdb" / "full").mkdir(parents=True)
    assert there.ask("BGSAVE").startswith(b"+Background")
    until(lambda: b"last_bgsave_status:err" in there.ask("INFO", "persistence"), "it has failed")


def has_no_space(there: Raw, folder: Path) -> None:
    """Let it refuse writes: its log cannot be written. No option helps."""
    assert there.ask("CONFIG", "SET", "appendfsync", "everysec") == b"+OK\r\n"
    log = max((folder / "appendonlydir").glob("appendonly.aof.*.incr.aof"))
    number = int(log.name.split(".")[2])
    log.with_name(f"appendonly.aof.{number + 1}.incr.aof").symlink_to("/dev/full")
    assert there.ask("BGREWRITEAOF").startswith(b"+Background")
    there.ask("SET", "anything", "x")
    until(lambda: b"aof_last_write_status:err" in there.ask("INFO", "persistence"), "it is full")


def has_space(there: Raw, folder: Path) -> None:
    """Let it write its log again."""
    for log in (folder / "appendonlydir").glob("appendonly.aof.*.incr.aof"):
        if log.is_symlink():
            log.unlink()
    until(lambda: there.ask("BGREWRITEAOF").startswith(b"+Background"), "no other one runs")
    until(lambda: b"aof_last_write_status:ok" in there.ask("INFO", "persistence"), "it has space")


REFUSALS: dict[Callable[[Raw, Path], None], bytes] = {
    lacks_replicas: b"-NOREPLICAS ",
    fails_to_save: b"-MISCONF ",
}


@pytest.mark.parametrize("happens", [True, False], ids=["decided", "not decided"])
@pytest.mark.parametrize("refuse", REFUSALS)
def test_a_write_ends(
    running: Threadis, tmp_path: Path, refuse: Callable[[Raw, Path], None], *, happens: bool
) -> None:
    address = ("127.0.0.1", running.port)
    folder = next(tmp_path.glob("**/instance-1"))
    with Raw(address) as client, Raw(address) as writer, Raw(socket_of(running, 1)) as there:
        assert client.ask("MSET", A, "old", B, "old") == b"+OK\r\n"
        decides = running.instance_pids()[0]
        with stopped(decides):
            writer.send(command("MSET", A, "new", B, "new"))
            until(lambda: b" in doubt " in client.ask("GET", B), "it has promised")
            refuse(there, folder)
            if not happens:
                os.kill(decides, signal.SIGKILL)
        value = b"$3\r\nnew\r\n" if happens else b"$3\r\nold\r\n"
        until(lambda: client.ask("MGET", A, B) == b"*2\r\n" + 2 * value, "it has ended")
        until(lambda: hidden(client) == 0, "no record is left")
        assert client.ask("SET", B, "x").startswith(REFUSALS[refuse])


def test_a_flush_ends(running: Threadis, tmp_path: Path) -> None:
    address = ("127.0.0.1", running.port)
    decides, there = (Raw(socket_of(running, index)) for index in range(2))
    with Raw(address) as client, Raw(address) as writer, decides, there:
        assert client.ask("SET", B, "old") == b"+OK\r\n"
        many = "for i = 1, 1000000 do redis.call('set', KEYS[1] .. i, '') end"
        decides.ask("EVAL", many, "1", f"{{{A}}}")
        assert there.ask("SELECT", "16") == b"+OK\r\n"
        writer.send(command("FLUSHALL", "SYNC"))  # takes the one that decides a while
        until(lambda: there.ask("DBSIZE") != b":0\r\n", "it is prepared")
        lacks_replicas(there, tmp_path)
        assert writer.reply() == b"+OK\r\n"
        assert client.ask("GET", B) == b"$-1\r\n"
        until(lambda: hidden(client) == 0, "no record is left")
        assert client.ask("SET", B, "x").startswith(b"-NOREPLICAS ")


WRITES = (("MSET", A, "x", B, "x"), ("RENAME", A, B), ("DEL", A, B), ("FLUSHALL",))
FULL = b"-MISCONF Errors writing to the AOF file: No space left on device\r\n"


def test_keys_are_read_although_the_one_who_has_promised_has_no_space(
    running: Threadis, tmp_path: Path
) -> None:
    """Nothing was decided: it has only a record that it cannot delete."""
    address = ("127.0.0.1", running.port)
    folder = next(tmp_path.glob("**/instance-1"))
    with Raw(address) as client, Raw(address) as writer, Raw(socket_of(running, 1)) as there:
        assert client.ask("MSET", A, "old", B, "old") == b"+OK\r\n"
        decides = running.instance_pids()[0]
        with stopped(decides):
            writer.send(command("MSET", A, "new", B, "new"))
            until(lambda: b" in doubt " in client.ask("GET", B), "it has promised")
            has_no_space(there, folder)
            os.kill(decides, signal.SIGKILL)
        old = b"*2\r\n" + 2 * b"$3\r\nold\r\n"
        until(lambda: client.ask("MGET", A, B) == old, "both are read")
        assert client.ask("SET", A, "x") == b"+OK\r\n"
        refuses_to_write(client, full=B, other=A)
        has_space(there, folder)
        until(lambda: hidden(client) == 0, "no record is left")
        assert client.ask("SET", B, "x") == b"+OK\r\n"


def test_keys_are_read_although_the_one_who_has_decided_has_no_space(
    running: Threadis, tmp_path: Path
) -> None:
    """Everything has happened: it has only a record that it cannot delete."""
    address = ("127.0.0.1", running.port)
    folder = next(tmp_path.glob("**/instance-0"))
    with Raw(address) as client, Raw(address) as writer, Raw(socket_of(running, 0)) as there:
        assert client.ask("MSET", A, "old", B, "old") == b"+OK\r\n"
        decides, other = running.instance_pids()
        with stopped(decides):
            writer.send(command("MSET", A, "new", B, "new"))
            until(lambda: b" in doubt " in client.ask("GET", B), "it has promised")
            os.kill(other, signal.SIGSTOP)  # for good
        until(lambda: there.ask("GET", A) == b"$3\r\nnew\r\n", "it is decided")
        with stopped(running.process.pid):  # the other one does not come back before
            os.kill(other, signal.SIGKILL)
            has_no_space(there, folder)
        new = b"*2\r\n" + 2 * b"$3\r\nnew\r\n"
        until(lambda: client.ask("MGET", A, B) == new, "both are read")
        assert client.ask("SET", B, "x") == b"+OK\r\n"
        refuses_to_write(client, full=A, other=B)
        has_space(there, folder)
        until(lambda: hidden(client) == 0, "no record is left")
        assert client.ask("SET", A, "x") == b"+OK\r\n"


def refuses_to_write(client: Raw, full: str, other: str) -> None:
    """The instance of one key does, which has no space, whatever the command."""
    for words in (
        ("SET", full, "x"),
        ("MSET", A, "x", B, "x"),
        ("RENAME", other, full),
        ("DEL", A, B),
        ("FLUSHALL",),
    ):
        assert client.ask(*words) == FULL, words
