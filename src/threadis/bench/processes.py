"""Servers as child processes: pinned to CPUs, in their own directory, ended in any case."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from threadis.bench.errors import BenchError

T = TypeVar("T")

READY_TIMEOUT = 30.0  # seconds; Python, and several servers, on one busy core
STOP_TIMEOUT = 20.0  # seconds until SIGKILL
POLL = 0.02  # seconds
LOG_TAIL = 2000  # characters of a failed server's log that are shown


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that the kernel gives to nobody else meanwhile.

    Who asks for it by number and allows SO_REUSEADDR, as servers do, can still listen there.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def confined(cpus: Sequence[int]) -> Iterator[None]:
    """Pin children that are started inside to these CPUs, as with ``taskset``; empty: no change."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A running process and its output."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    def output(self) -> str:
        """Return its output so far."""
        return self._log.read_text(errors="replace")

    def wait_until(self, what: str, probe: Callable[[], T | None]) -> T:
        """Return what ``probe`` returns, once that is true; BenchError if the process ends."""
        deadline = time.monotonic() + READY_TIMEOUT
        while not (found := probe()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                end = "ended" if self._process.poll() is not None else "did not get ready"
                tail = self.output()[-LOG_TAIL:].strip()
                raise BenchError(f"{what} {end}; it printed:\n{tail}")
            time.sleep(POLL)
        return found

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL, also to its children."""
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.pid).children(recursive=True)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(family, timeout=1)
        for orphan in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    directory: Path,
    cpus: Sequence[int],
    environment: Mapping[str, str] = {},
) -> Iterator[Child]:
    """Run a command in its own session, so that Ctrl-C comes to us only."""
    log = directory / f"{name}.log"
    with contextlib.ExitStack() as stack:
        with signals_later(), log.open("wb") as output, confined(cpus):
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            child = Child(process, log)
            stack.callback(_stop, child)
        yield child


def _stop(child: Child) -> None:
    with signals_later():
        child.stop()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Create a temporary directory with a path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        yield Path(directory)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM: no server may start unnoticed, or survive its stop.

    Not by ignoring or blocking them, which the children would inherit.
    """
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in caught[:1]:
        signal.raise_signal(missed)
