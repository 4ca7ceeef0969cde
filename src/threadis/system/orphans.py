"""Reaps orphaned processes that became our children.

In a container without an init, ``threadis serve`` is process 1: what a killed instance has forked
(a snapshot, a rewrite of its log) becomes its child, and stays a zombie unless it is waited for.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

_PR_GET_CHILD_SUBREAPER: Final = 37  # <sys/prctl.h>


def adopts() -> bool:
    """Whether orphans below us become our children."""
    found = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return os.getpid() == 1 or found.value != 0


def reap(ours: Callable[[], Container[int]]) -> None:
    """Wait, from now on, for every child except ``ours``, which other code waits for."""
    if adopts():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, lambda: _reap(ours()))


def _reap(ours: Container[int]) -> None:
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, path.read_text().split()):
                if pid not in ours:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
