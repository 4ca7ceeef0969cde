"""CPU time of other processes, exact to what the scheduler accounts.

The kernel keeps a CPU clock for every process: nanoseconds that all its threads were on a CPU,
the same counters as in ``/proc/PID/task/*/schedstat``. The clock also holds what threads spent
that have ended since, and one call reads it; a walk over ``task/`` loses both.
"""

import time
from collections.abc import Iterable, Mapping

import psutil

from threadis.bench.errors import BenchError

CPUCLOCK_SCHED = 2  # linux/posix-timers.h: run time by the scheduler, not by ticks
MICROSECOND = 1e-6

Parts = Mapping[str, Iterable[int]]  # name of a part -> its processes


def process_cpu(pid: int) -> float:
    """Seconds that all threads of a process, also those that ended, were on a CPU."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


class CpuMeter:
    """CPU time of the parts of a system since the meter was made."""

    def __init__(self, parts: Parts) -> None:
        self._parts = {name: sorted(pids) for name, pids in parts.items()}
        self._before = self._read()

    def restart(self) -> None:
        """Forget what was spent so far."""
        self._before = self._read()

    def us_per_command(self, commands: int) -> dict[str, float]:
        """Microseconds of each part per command, and their ``total``."""
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
