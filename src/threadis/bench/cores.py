"""Cores for a scaling run: slow ones, which are CPU quotas, or real ones; what runs on each, and
how much CPU time it used.

Slow cores share one real CPU. They show how work and load divide over the cores, but not what cores
cost each other: wake-ups across cores, cache misses, locks.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from threadis.bench.cgroup import Quota, groups
from threadis.bench.cpu import process_cpu
from threadis.bench.errors import BenchError
from threadis.bench.targets import Target

# 6.25 % of a CPU, in as large bites as keep its caches warm: shorter periods cost the servers up to
# a third more CPU per command, longer ones leave clients without anything to do.
SLOW = Quota(2000, 32000)
SLOW_CORES_LIMIT = 12  # so that a quarter of the real CPU is left for everything else

WORKER = "worker-"  # the names of the proxy's threads begin so
NANOSECOND = 1e-9


class Core(Protocol):
    """Something that processes and threads are put on."""

    def add_process(self, pid: int) -> None:
        """All threads of a process."""

    def add_thread(self, pid: int, thread: int) -> None:
        """One thread of a process."""


class RealCore:
    """One CPU of this machine."""

    def __init__(self, cpu: int) -> None:
        self._cpu = cpu

    def add_process(self, pid: int) -> None:
        """All threads of a process."""
        for thread in Path(f"/proc/{pid}/task").iterdir():
            self.add_thread(pid, int(thread.name))

    def add_thread(self, pid: int, thread: int) -> None:
        """One thread of a process."""
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, [self._cpu])


@contextlib.contextmanager
def allot(counts: Sequence[int], real: Sequence[int]) -> Iterator[list[list[Core]]]:
    """Yield so many cores for each target: slow ones, or the first of the ``real`` CPUs."""
    if real:
        yield [[RealCore(cpu) for cpu in real[:count]] for count in counts]
        return
    with groups([SLOW] * sum(counts)) as made:
        found = iter(made)
        yield [[next(found) for _ in range(count)] for count in counts]


class Split(msgspec.Struct, frozen=True):
    """The numbers of workers and instances."""

    workers: int
    instances: int

    def __str__(self) -> str:
        return f"{self.workers}:{self.instances}"

    def fits(self, cores: int) -> bool:
        """Whether each has a core of its own, or a worker and an instance share each."""
        return self.workers + self.instances == cores or self.workers == self.instances == cores


def read_split(text: str) -> Split:
    """Parse "9:3"."""
    workers, _, instances = text.partition(":")
    try:
        found = Split(int(workers), int(instances))
    except ValueError:
        raise BenchError(f"--split {text}: workers and instances, as 9:3") from None
    if min(found.workers, found.instances) < 1:
        raise BenchError(f"--split {text}: at least one of each")
    return found


def splits(cores: int) -> list[Split]:
    """Return the splits worth trying: a third to five sixths of the cores for workers; up to two
    cores are also shared by as many workers and instances each.
    """
    shared = [Split(cores, cores)] if cores <= 2 else []
    shares = (1 / 3, 5 / 12, 1 / 2, 2 / 3, 3 / 4, 5 / 6)
    workers = {min(max(1, round(cores * share)), cores - 1) for share in shares}
    return shared + [Split(count, cores - count) for count in sorted(workers) if count > 0]


class Placement:
    """The threads of one target on its cores, and the CPU time of each core.

    Worker i has core i, the instances follow. The rest of the proxy process (the coordinator) and
    the supervisor share the first core with worker 0.
    """

    def __init__(self, target: Target, cores: Sequence[Core]) -> None:
        proxy = next(iter(target.parts.get("proxy", [])), None)
        workers = worker_threads(proxy) if proxy else []
        # (process, thread), the thread None for all of it
        self._members: list[list[tuple[int, int | None]]] = [[] for _ in cores]
        for index, tid in enumerate(workers):
            self._members[index % len(cores)].append((proxy or 0, tid))
        for index, pid in enumerate(target.parts.get("instances") or target.parts["server"]):
            self._members[(len(workers) + index) % len(cores)].append((pid, None))
        self._members[0] += [(pid, None) for pid in target.parts.get("supervisor", [])]
        self._rest = (proxy, workers) if proxy else None
        if proxy:
            cores[0].add_process(proxy)  # before its workers, which then leave that core
        for core, members in zip(cores, self._members, strict=True):
            for pid, thread in members:
                if thread is None:
                    core.add_process(pid)
                else:
                    core.add_thread(pid, thread)

    def cpu_seconds(self) -> list[float]:
        """Return what each core has used so far for this target."""
        spent = [sum(_spent(*member) for member in members) for members in self._members]
        if self._rest is not None:
            proxy, workers = self._rest
            spent[0] += process_cpu(proxy) - sum(_spent(proxy, thread) for thread in workers)
        return spent


def worker_threads(proxy: int) -> list[int]:
    """Return the thread ids of a proxy's workers, in order."""
    found = {}
    for thread in Path(f"/proc/{proxy}/task").iterdir():
        name = (thread / "comm").read_text().strip()
        if name.startswith(WORKER):
            found[int(name.removeprefix(WORKER))] = int(thread.name)
    if not found:
        raise BenchError(f"no thread of process {proxy} is named {WORKER}N")
    return [found[index] for index in sorted(found)]


def _spent(pid: int, thread: int | None) -> float:
    """Return the CPU seconds of a process, or of one of its threads."""
    if thread is None:
        return process_cpu(pid)
    schedstat = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
    return int(schedstat.split()[0]) * NANOSECOND
