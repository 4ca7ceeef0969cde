"""thREaDIS over four instances, or the stock server; worker processes that applications start."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import redis

from conftest import Threadis
from threadis.bench.processes import held_port
from threadis.supervisor import server
from tools.servers import running as serving

FULL = os.environ.get("THREADIS_TORTURE") == "full"
INSTANCES = 4
WORKER_STOP_LIMIT = 20.0  # seconds for a worker that was asked to end


class Worker:
    """A worker process of an application, with what it printed."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Ask it to end; end it if it does not."""
        self.process.terminate()
        try:
            self.process.wait(WORKER_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._file.close()


@pytest.fixture(scope="session", params=["threadis", "stock"] if FULL else ["threadis"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One thREaDIS for all applications; in `make applications` also the stock server."""
    folder = tmp_path_factory.mktemp("applications")
    if request.param == "stock":
        with held_port() as number:
            flags = ["--port", str(number), "--save", "", "--dir", str(folder)]
            with serving([server.find(None).path, *flags], number):
                yield number
        return
    flags = ["--instances", str(INSTANCES), "--save", ""]
    running = Threadis(folder / "data", folder / "serve.log", flags)
    try:
        yield running.wait_until_serving().port
    finally:
        running.close()


@pytest.fixture
def url(port: int) -> str:
    """Where it is, for an application; nothing is in it."""
    with redis.Redis(port=port) as client:
        client.flushall()
    return f"redis://127.0.0.1:{port}"


@pytest.fixture
def client(url: str) -> Iterator["redis.Redis"]:
    """redis-py as its users get it."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts worker processes; the application finds the server in REDIS_URL."""
    started: list[Worker] = []

    def start(*arguments: str) -> Worker:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(Worker(list(arguments), log, {"REDIS_URL": url}))
        return started[-1]

    yield start
    for one in started:
        one.close()
