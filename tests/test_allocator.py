"""Which memory allocator the instances get: chosen, refused, really loaded, rightly accounted."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from threadis.errors import ServerError
from threadis.supervisor import allocator
from threadis.supervisor.server import ServerBinary
from waiting import until

Start = Callable[..., Threadis]
MIB = 1024 * 1024


@pytest.fixture
def libc_server(stock_server: ServerBinary, monkeypatch: pytest.MonkeyPatch) -> ServerBinary:
    """A server that leaves us the choice."""
    for name in (allocator.PRELOAD, allocator.TUNABLES):
        monkeypatch.delenv(name, raising=False)
    if not stock_server.allocator.startswith("libc"):
        # nothing of it is ours to choose, and that is all there is to test of it
        assert allocator.environment(allocator.AUTO, stock_server) == {}
        assert allocator.environment(allocator.NONE, stock_server) == {}
        with pytest.raises(ServerError, match=r"has \S+ built in, .* leave --allocator out"):
            allocator.environment(allocator.JEMALLOC, stock_server)
    return stock_server


def is_ours(server: ServerBinary) -> bool:
    """Whether the server leaves us the choice."""
    return server.allocator.startswith("libc")


def libraries(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_choice(libc_server: ServerBinary, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_ours(libc_server):
        return
    preload = {"LD_PRELOAD": allocator.JEMALLOC}
    assert allocator.environment(allocator.AUTO, libc_server) == preload
    assert allocator.environment(allocator.JEMALLOC, libc_server) == preload
    assert allocator.environment(allocator.NONE, libc_server) == {}
    monkeypatch.setattr(allocator, "JEMALLOC", "libnothing.so.9")
    tuned = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1024"}
    assert allocator.environment(allocator.AUTO, libc_server) == tuned
    assert allocator.describe(tuned, os.getpid()) == f"glibc, with {allocator.TUNED}"
    assert allocator.describe({}, os.getpid()) is None


@pytest.mark.parametrize("name", [allocator.PRELOAD, allocator.TUNABLES])
def test_who_has_chosen_already_is_left_alone(
    libc_server: ServerBinary, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    assert allocator.environment(allocator.AUTO, libc_server) == {}


def test_what_the_loader_refuses_is_refused(libc_server: ServerBinary, tmp_path: Path) -> None:
    if not is_ours(libc_server):
        return
    (tmp_path / "lib.so").write_text("not a library")
    for library in (str(tmp_path / "lib.so"), str(tmp_path / "missing.so"), "libnothing.so.9"):
        with pytest.raises(ServerError, match=r"allocator: .* does not run with .*preloaded"):
            allocator.environment(library, libc_server)


def test_what_is_not_loaded_is_not_claimed(tmp_path: Path) -> None:
    assert allocator.describe({"LD_PRELOAD": "libnothing.so.9"}, os.getpid()) is None
    assert allocator.describe({"LD_PRELOAD": "libnothing.so.9"}, 2**22 + 1) is None
    loaded = re.search(r"\S*/libc\.so\.6$", libraries(os.getpid()), re.MULTILINE)
    assert loaded
    link = tmp_path / "link.so"
    link.symlink_to(loaded[0])
    for name in (loaded[0], str(link), "libc.so"):
        assert allocator.describe({"LD_PRELOAD": name}, os.getpid()) == f"{loaded[0]}, preloaded"


def test_instances_have_it_and_account_for_it(threadis: Start, libc_server: ServerBinary) -> None:
    running = threadis("--server", libc_server.path, "--instances", "2", "--save", "")
    told = re.search(r"^memory   (.*), preloaded$", running.log(), re.MULTILINE)
    assert bool(told) == is_ours(libc_server), running.log()
    if not told:
        return
    assert all(told[1] in libraries(pid) for pid in running.instance_pids())
    assert told[1] not in libraries(running.proxy_pid())
    with running.client() as client:
        before = client.info("memory")["used_memory"]
        for number in range(1024):
            client.set(f"key:{number}", b"x" * (MIB // 64))
        assert 16 * MIB <= client.info("memory")["used_memory"] - before < 24 * MIB
        client.flushall()
        assert client.info("memory")["used_memory"] - before < MIB
        assert client.execute_command("MEMORY", "PURGE")
        client.set("key", "value")
        assert client.bgsave()  # a fork
        until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "it is saved")
        assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
        victims = running.instance_pids()
        os.kill(victims[0], signal.SIGKILL)
        until(lambda: not set(running.instance_pids()) & {victims[0]}, "it is dead")
        until(lambda: len(running.instance_pids()) == 2, "it is back")
        until(lambda: told[1] in libraries(running.instance_pids()[0]), "it has it, too")


def test_none_is_none(threadis: Start, libc_server: ServerBinary) -> None:
    running = threadis("--server", libc_server.path, "--instances", "1", "--allocator", "none")
    assert "memory   " not in running.log()
    if is_ours(libc_server):
        assert "jemalloc" not in libraries(running.instance_pids()[0])
