"""CPU time of other processes, as exact as the scheduler's accounting.

The kernel keeps a CPU clock for every process: nanoseconds that its threads were on a CPU, the same
counters as in ``/proc/PID/task/*/schedstat``. The clock also includes threads that have ended, and
one call reads it; a walk over ``task/`` has neither advantage.
"""

import time
from collections.abc import Iterable, Mapping

import psutil

from threadis.bench.errors import BenchError

CPUCLOCK_SCHED = 2  # linux/posix-timers.h: run time by the scheduler, not by ticks
MICROSECOND = 1e-6

Parts = Mapping[str, Iterable[int]]  # name of a part -> its processes


def process_cpu(pid: int) -> float:
    """Return the seconds that all threads of a process were on a CPU, including ended ones."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def tree(pid: int) -> list[int]:
    """Return a process and everything below it."""
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


class CpuMeter:
    """CPU time of the parts of a system since the meter was created."""

    def __init__(self, parts: Parts) -> None:
        self._parts = {name: sorted(pids) for name, pids in parts.items()}
        self._before = self._read()

    def restart(self) -> None:
        """Start again at zero."""
        self._before = self._read()

    def us_per_command(self, commands: int) -> dict[str, float]:
        """Return microseconds of each part per command, and their ``total``."""
        after = self._read()
        used = {
            name: round(
                sum(after[pid] - self._before[pid] for pid in pids) / MICROSECOND / commands, 4
            )
            for name, pids in self._parts.items()
        }
        return used | {"total": sum(used.values())}

    def _read(self) -> dict[int, float]:
        try:
            return {pid: process_cpu(pid) for pids in self._parts.values() for pid in pids}
        except OSError:
            raise BenchError(
                "a server process ended while it was measured; look at the server's log"
            ) from None
