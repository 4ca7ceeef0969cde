"""What the kernel says of the CPUs: which we may use, how much of them, their topology."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


@dataclasses.dataclass(frozen=True)
class Cpu:
    """One logical CPU."""

    index: int
    node: int = 0  # NUMA node
    sibling_rank: int = 0  # 0: the first thread of its physical core, 1: the second ...


@dataclasses.dataclass(frozen=True)
class Machine:
    """The CPUs that this process may use."""

    cpus: tuple[Cpu, ...]
    quota: float | None = None  # CPUs' worth of time the cgroup grants; None: no limit


def read(root: Path = ROOT, allowed: set[int] | None = None) -> Machine:
    """Return the machine as the kernel shows it below ``root`` (tests use another one)."""
    usable = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    nodes = _nodes(root)
    cpus = tuple(
        Cpu(index, nodes.get(index, 0), _sibling_rank(root, index, usable)) for index in usable
    )
    return Machine(cpus, quota(root))


def parse_cpu_list(text: str) -> list[int]:
    """Parse the kernel's lists, "0-3,8,10-11"."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.extend(range(int(first), int(last or first) + 1))
    return found


def _text(path: Path) -> str | None:
    """Read a small kernel file; None if this kernel does not have it."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _nodes(root: Path) -> dict[int, int]:
    """Return the NUMA node of each CPU."""
    found = {}
    for path in (root / "sys/devices/system/node").glob("node[0-9]*/cpulist"):
        for cpu in parse_cpu_list(_text(path) or ""):
            found[cpu] = int(path.parent.name.removeprefix("node"))
    return found


def _sibling_rank(root: Path, cpu: int, usable: list[int]) -> int:
    """Return how many usable threads of the same physical core come before this one."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    siblings = parse_cpu_list(_text(topology / "thread_siblings_list") or str(cpu))
    return sum(1 for other in siblings if other in usable and other < cpu)


def quota(root: Path = Path("/"), thread: int | None = None) -> float | None:
    """Return the tightest CPU quota of our own cgroup and its ancestors, in CPUs; None: no limit.

    Or of one of our threads, which may have been moved to another cgroup.
    """
    quotas: list[float] = []
    who = "self" if thread is None else f"self/task/{thread}"
    for line in (_text(root / f"proc/{who}/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(root / "sys/fs/cgroup", path):
                quotas.extend(_quota_v2(folder))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup" / controllers, path):
                quotas.extend(_quota_v1(folder))
    return min(quotas, default=None)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup's folder and its ancestors; in a container some are hidden."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def taken() -> Counter[int]:
    """Count how many threads of other processes are pinned to each CPU alone."""
    found: Counter[int] = Counter()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        tied = [cpus.pop() for cpus in map(_affinity, _threads(process)) if len(cpus) == 1]
        if tied and _text(process / "cmdline"):  # the kernel's own have none
            found.update(tied)
    return found


def _threads(process: Path) -> list[int]:
    try:
        return [int(path.name) for path in (process / "task").iterdir()]
    except OSError:  # it has ended
        return []


def _affinity(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except OSError:
        return set()


def _quota_v2(folder: Path) -> list[float]:
    """Read ``cpu.max``: "max 100000", or microseconds of CPU time in each period."""
    words = (_text(folder / "cpu.max") or "").split()
    if len(words) != 2 or words[0] == "max":
        return []
    return [int(words[0]) / int(words[1])]


def _quota_v1(folder: Path) -> list[float]:
    """Read ``cpu.cfs_quota_us``: -1, or microseconds of CPU time in each period."""
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:
        return []
    return [int(quota) / int(period)]


def usable_cpus(machine: Machine) -> list[Cpu]:
    """Return the CPUs worth counting: physical cores first, a node at a time, within the quota."""
    ordered = sorted(machine.cpus, key=lambda cpu: (cpu.sibling_rank, cpu.node, cpu.index))
    if machine.quota is None:
        return ordered
    return ordered[: max(1, math.ceil(machine.quota))]
