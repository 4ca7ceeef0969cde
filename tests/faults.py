"""Faults that tests make."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from conftest import Threadis


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill_all(running: Threadis) -> None:
    """Kill the supervisor, the instances and the proxy in the same moment."""
    for pid in (running.process.pid, *running.instance_pids(), *running.proxy_pids()):
        os.kill(pid, signal.SIGKILL)
    running.close()
