"""One instance on real servers: its configuration, its states, its restarts, its end."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from threadis import own_names
from threadis.config import config
from threadis.control import State
from threadis.data.data_dir import DataDir
from threadis.supervisor import health, instance_config
from threadis.supervisor.instance import Instance
from threadis.supervisor.server import ServerBinary
from threadis.system.process import activity
from waiting import alive, until_async

PASSWORD = "f" * 64
# A script that keeps its server busy for 2.5 s
# Newer servers freeze TIME within a script and have a clock instead; Redis 7.0 has none.
BUSY = """
    local os = rawget(_G, 'os')
    local function now()
        if os then return os.clock() end
        local t = redis.call('TIME')
        return t[1] + t[2] / 1e6
    end
    local deadline = now() + 2.5
    while now() < deadline do end
    return 'done'
"""


class Stage:
    """An instance in a data directory of its own, and what it told."""

    def __init__(
        self, folder: Path, server: ServerBinary, flags: dict[str, str], sets: list[str]
    ) -> None:
        settings = config.load(flags, sets)
        self.data = DataDir(str(folder), instance_config.wanted(settings))
        self.data.open(1)
        self.states: list[State] = []
        self.cpu = min(os.sched_getaffinity(0))
        self.instance = Instance(
            0,
            [self.cpu],
            settings,
            server,
            self.data,
            PASSWORD,
            1,
            lambda _db, _key: 0,
            lambda one: self.states.append(one.state),
        )
        self.instance.judged.set()
        self.task = asyncio.create_task(self.instance.run())
        self.fast = asyncio.Event()

    async def ask(self, *words: str) -> bytes:
        message = self.instance.message()
        reply = await health.ask(message.socket, PASSWORD, message.pid, list(words), 120.0)
        assert reply is not None
        return reply

    async def ready(self) -> None:
        await until_async(lambda: self.instance.state is State.READY, "ready")

    async def stop(self) -> bool:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        clean = await self.instance.stop(self.fast)
        self.data.close()
        return clean


def play(
    folder: Path,
    server: ServerBinary,
    scene: Callable[[Stage], Awaitable[None]],
    flags: dict[str, str] | None = None,
    sets: list[str] | None = None,
) -> bool:
    """Run a scene with an instance; whether it stopped well. No process survives."""

    async def run() -> bool:
        stage = Stage(folder, server, flags or {}, sets or [])
        try:
            await scene(stage)
        finally:
            clean = await stage.stop()
        assert not alive(stage.instance.message().pid)
        return clean

    return asyncio.run(run())


def test_it_is_what_was_planned(tmp_path: Path, stock_server: ServerBinary) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        message = stage.instance.message()
        assert os.sched_getaffinity(message.pid) == {stage.cpu}
        assert Path(message.socket).stat().st_mode & 0o777 == 0o700
        arguments = Path(f"/proc/{message.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{message.pid}/environ").read_bytes()
        assert PASSWORD.encode() not in arguments + environment
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(message.socket)
            stranger.sendall(f"AUTH {own_names.ADMIN.decode()} guess\r\n".encode())
            assert stranger.recv(100).startswith(b"-WRONGPASS")
        info = (await stage.ask("INFO")).decode()
        for line in ("tcp_port:0", "maxmemory:1048576", "aof_enabled:1", "hz:37"):
            assert line in info
        assert "maxmemory_policy:allkeys-lru" in info
        assert (await stage.ask("DEBUG", "JMAP")).startswith(b"-ERR DEBUG command not allowed")

    flags = {"maxmemory": "1mb", "maxmemory_policy": "allkeys-lru", "appendonly": "yes"}
    assert play(tmp_path / "data", stock_server, scene, flags, ["hz=37"])


def test_a_killed_one_comes_back_with_its_keys(tmp_path: Path, stock_server: ServerBinary) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        first = stage.instance.message()
        assert await stage.ask("SET", "key", "value") == b"+OK\r\n"
        os.kill(first.pid, signal.SIGKILL)
        await until_async(lambda: State.RESTARTING in stage.states, "its death is told")
        await until_async(lambda: stage.states[-1] is State.READY, "it is back")
        second = stage.instance.message()
        assert (second.pid != first.pid, second.socket != first.socket) == (True, True)
        assert await stage.ask("GET", "key") == b"value"

    flags = {"appendonly": "yes"}
    assert play(tmp_path / "data", stock_server, scene, flags, ["appendfsync=always"])


def test_a_stopped_one_is_told_and_saves_at_the_end(
    tmp_path: Path, stock_server: ServerBinary
) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.ask("SET", "key", "value")
        os.kill(stage.instance.message().pid, signal.SIGSTOP)
        await until_async(lambda: stage.states[-1] is State.STOPPED, "it is told")
        os.kill(stage.instance.message().pid, signal.SIGCONT)
        await until_async(lambda: stage.states[-1] is State.READY, "it answers again")
        os.kill(stage.instance.message().pid, signal.SIGSTOP)

    assert play(tmp_path / "data", stock_server, scene)
    assert (tmp_path / "data" / "instance-0" / "dump.rdb").exists()


def test_a_busy_one_is_left_alone(tmp_path: Path, stock_server: ServerBinary) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        seen = len(stage.states)
        assert await stage.ask("EVAL", BUSY, "0") == b"done"
        assert stage.states[seen:] == []

    assert play(tmp_path / "data", stock_server, scene)


def test_one_that_never_comes_up_is_called_failed(
    tmp_path: Path, stock_server: ServerBinary
) -> None:
    async def scene(stage: Stage) -> None:
        await stage.instance.settled.wait()
        assert stage.instance.state is State.RESTARTING
        assert "no-such-directive" in stage.instance.ending
        await until_async(lambda: stage.instance.state is State.FAILED, "it is given up")

    play(tmp_path / "data", stock_server, scene, sets=["no-such-directive=1"])


def test_it_is_not_started_without_its_data(tmp_path: Path, stock_server: ServerBinary) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        folder = stage.data.folder(0) / "appendonlydir"
        folder.rename(tmp_path / "aside")
        os.kill(stage.instance.message().pid, signal.SIGKILL)
        await until_async(lambda: "is missing" in stage.instance.ending, "it is refused")
        (tmp_path / "aside").rename(folder)
        await stage.ready()

    assert play(tmp_path / "data", stock_server, scene, {"appendonly": "yes"})


def test_one_that_cannot_save_is_not_killed_in_silence(
    tmp_path: Path,
    stock_server: ServerBinary,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("threadis.supervisor.instance_stop.REFUSAL_LIMIT", 2.0)

    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.ask("SET", "key", "value")
        (stage.data.folder(0) / "dump.rdb").mkdir()  # the snapshot cannot take this name

    assert not play(tmp_path / "data", stock_server, scene)
    assert "instance 0 cannot save and refuses to stop" in caplog.text
    assert "free disk space" in caplog.text
    assert "instance 0 was killed; what it had not written to disk is lost" in caplog.text


def test_one_that_can_save_again_stops_well(
    tmp_path: Path, stock_server: ServerBinary, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> bool:
        stage = Stage(tmp_path / "data", stock_server, {}, [])
        await stage.ready()
        await stage.ask("SET", "key", "value")
        obstacle = stage.data.folder(0) / "dump.rdb"
        obstacle.mkdir()
        stopping = asyncio.create_task(stage.stop())
        await until_async(lambda: "refuses to stop" in caplog.text, "the refusal is told")
        obstacle.rmdir()
        return await stopping

    assert asyncio.run(run())
    assert (tmp_path / "data" / "instance-0" / "dump.rdb").is_file()


def test_the_share_of_the_memory() -> None:
    assert instance_config.share(0, 4) == 0
    assert instance_config.share(1000, 3) == 333
    assert instance_config.share(1, 4) == 1


@pytest.mark.parametrize(
    ("threshold", "script", "clean", "said"),
    [
        ("50", "while true do end", True, ""),
        ("50", "redis.call('set', 'k', 1) while true do end", False, "a script ran"),
        ("0", "while true do end", False, "it did not answer"),  # it never says BUSY
    ],
    ids=["it has not written", "it has written", "it never says so"],
)
def test_one_that_runs_a_script_for_ever_is_ended(
    tmp_path: Path,
    stock_server: ServerBinary,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    threshold: str,
    script: str,
    clean: bool,
    said: str,
) -> None:
    monkeypatch.setattr("threadis.supervisor.instance_stop.BUSY_LIMIT", 2.0)

    async def run() -> bool:
        stage = Stage(tmp_path / "data", stock_server, {}, [f"lua-time-limit={threshold}"])
        await stage.ready()
        await stage.ask("SET", "key", "value")
        pid = stage.instance.message().pid
        before = activity(pid).cpu_ticks
        endless = asyncio.create_task(stage.ask("EVAL", script, "0"))
        await until_async(lambda: activity(pid).cpu_ticks > before + 10, "it runs")
        ended = await stage.stop()
        await asyncio.gather(endless, return_exceptions=True)
        return ended

    assert asyncio.run(run()) is clean
    assert said in caplog.text
    assert ("killed" in caplog.text) is not clean
    assert (tmp_path / "data" / "instance-0" / "dump.rdb").is_file() is clean
