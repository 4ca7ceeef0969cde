"""INFO waits for no instance that is at work on something else."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Threadis
from raw import Raw, command
from threadis import control
from threadis.coordinator.instances import info_collector
from threadis.coordinator.instances.links import LinkError
from threadis.system.process import cpu_seconds
from waiting import until

Start = Callable[..., Threadis]
LIMIT = 60.0  # seconds; only a mistake needs them
INFO = b"# Memory\r\nused_memory:7\r\n"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is always at work."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


class Instances:
    """Links to one instance, a process that answers when it is told to."""

    def __init__(self, pid: int) -> None:
        self._known = SimpleNamespace(socket="x", pid=pid, state=control.State.READY)
        self.asked: list[asyncio.Future[bytes]] = []

    def ready(self) -> list[int]:
        return [0]

    def all_instances(self) -> list[int]:
        return [0]

    def instance(self, index: int) -> Any:
        return self._known

    async def call(self, index: int, *words: bytes) -> bytes:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def nothing(index: int) -> None:
    """There is nothing to tidy up."""


@pytest.mark.parametrize("state", [signal.SIGCONT, signal.SIGSTOP])
def test_who_is_at_work_or_sleeps_is_shown_as_it_last_was(
    busy: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, state: signal.Signals
) -> None:
    monkeypatch.setattr(info_collector, "PATIENCE", 10 * LIMIT)

    async def ask() -> None:
        links = Instances(busy.pid)
        asking = info_collector.InfoCollector(links, nothing, lambda _: 0)  # type: ignore[arg-type]
        first = asyncio.create_task(asking.collect([]))
        while not links.asked:
            await asyncio.sleep(0)
        links.asked[0].set_result(INFO)
        assert await first == {0: {"Memory": {"used_memory": "7"}}}
        assert asking.age_ms(0) == 0
        busy.send_signal(state)
        async with asyncio.timeout(LIMIT):
            assert await asking.collect([]) == await first
        assert asking.age_ms(0) > 0
        assert await asking.collect([]) == await first  # it is not asked again
        assert len(links.asked) == 2
        links.asked[1].set_result(INFO.replace(b"7", b"8"))
        while asking.age_ms(0):
            await asyncio.sleep(0)
        third = asyncio.create_task(asking.collect([]))
        while len(links.asked) < 3:
            await asyncio.sleep(0)
        links.asked[2].set_exception(LinkError("it is away for a moment"))
        assert await third == {0: {"Memory": {"used_memory": "8"}}}

    asyncio.run(ask())


def test_who_gets_no_cpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_collector, "activity", lambda _: SimpleNamespace(state="R"))
    monkeypatch.setattr(info_collector, "cpu_seconds", lambda _: 0.0)

    async def ask() -> None:
        links = Instances(0)
        asking = info_collector.InfoCollector(links, nothing, lambda _: 0)  # type: ignore[arg-type]
        for number in range(2):
            question = asyncio.create_task(asking.collect([]))
            while len(links.asked) == number:
                await asyncio.sleep(0)
            await asyncio.sleep(20 * info_collector.MOMENT * number)
            links.asked[number].set_result(INFO)
            assert await question == {0: {"Memory": {"used_memory": "7"}}}
            assert asking.age_ms(0) == 0

    asyncio.run(ask())


def test_what_nobody_has_asked_for_yet_is_known(threadis: Start, tmp_path: Path) -> None:
    options = ("--instances", "2", "--save", "")
    running = threadis(*options, "--appendonly", "yes", folder=tmp_path / "kept")
    with running.client() as client:
        for number in range(32):
            client.set(f"k:{number}", "v")
    assert running.stop() == 0
    running = threadis(*options, "--appendonly", "yes", folder=tmp_path / "kept")
    with running.client() as client, Raw(("127.0.0.1", running.port)) as busy:
        client.config_set("lua-time-limit", 60_000)
        busy.send(command("EVAL", "while true do end", 1, "k:1"))
        pids = running.instance_pids()
        used = sum(map(cpu_seconds, pids))
        until(lambda: sum(map(cpu_seconds, pids)) > used + 0.1, "it runs")
        assert client.info("keyspace")["db0"]["keys"] == 32
        late = [client.info("threadis")[f"instance{number}"]["late_ms"] for number in range(2)]
        assert sorted(map(bool, late)) == [False, True]
        for pid in pids:  # it would run on
            os.kill(pid, signal.SIGKILL)
