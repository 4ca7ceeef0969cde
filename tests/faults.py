"""Faults that tests make."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from conftest import Threadis

# Options with which whatever was acknowledged survives a kill.
DURABLE = ("--appendonly", "yes", "--set", "appendfsync=always")


def locks(client: redis.Redis) -> int:
    """How many keys' locks are held or waited for: something is under way."""
    info: Any = client.info("threadis")
    return int(info["threadis_locks"])


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for a while. It may be killed meanwhile, and be gone."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_all(running: Threadis) -> None:
    """Kill the supervisor, the instances and the proxy in the same moment."""
    for pid in (running.process.pid, *running.instance_pids(), *running.proxy_pids()):
        os.kill(pid, signal.SIGKILL)
    running.close()
