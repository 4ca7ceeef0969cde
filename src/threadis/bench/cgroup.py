"""CPU quotas by cgroup, version 1 and 2: groups of processes and of single threads.

::

    <where the cpu controller is mounted>/
      threadis-bench-4711/       ours (4711 is this process), without a quota
        0/  1/  2/               one quota each

The groups are removed at the end in any case; what a killed benchmark left is removed by the next
one. Version 2 can move single threads only within a threaded subtree. So a process first moves as a
whole to the directory in the middle, and at the end it leaves as a whole.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from threadis.bench.errors import BenchError
from threadis.bench.processes import signals_later

PREFIX = "threadis-bench-"
# The highest there is: what a quota grants must be had, whatever else the machine does.
WEIGHT_FILE = {1: "cpu.shares", 2: "cpu.weight"}
WEIGHT = {1: 262144, 2: 10000}
ATTEMPTS = 100  # to empty a group: threads may be born while it is read


class Quota(msgspec.Struct, frozen=True):
    """So much of one CPU in each period. The kernel accepts no quota below 1,000 µs."""

    quota_us: int
    period_us: int

    @property
    def share(self) -> float:
        """Return the share of one CPU."""
        return self.quota_us / self.period_us

    def __str__(self) -> str:
        return f"{self.quota_us / 1000:g} ms in every {self.period_us / 1000:g} ms"


class Hierarchy(msgspec.Struct, frozen=True):
    """Where the cpu controller is mounted, and the names of its files."""

    root: Path
    version: int

    @classmethod
    def find(cls) -> "Hierarchy":
        """Return this machine's."""
        unified = None
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            place, _, kind = line.partition(" - ")
            path, (filesystem, _, options) = Path(place.split()[4]), kind.split(maxsplit=2)
            if filesystem == "cgroup" and "cpu" in options.split(","):
                return cls(path, 1)
            if filesystem == "cgroup2":
                unified = path
        if unified and "cpu" in (unified / "cgroup.controllers").read_text().split():
            return cls(unified, 2)
        raise BenchError(
            "no cgroup controller for CPU is mounted, so quotas and slow cores are not possible"
        )

    @property
    def home(self) -> Path:
        """Return the group of this process, where the servers came from and go back to."""
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            wanted = "cpu" in controllers.split(",") if self.version == 1 else not controllers
            if wanted and (self.root / path.lstrip("/")).is_dir():
                return self.root / path.lstrip("/")
        return self.root

    @property
    def members_file(self) -> str:
        """Return the file with a group's members: threads, or whole processes."""
        return "tasks" if self.version == 1 else "cgroup.procs"


class Group:
    """One quota, and its members."""

    def __init__(self, directory: Path, version: int) -> None:
        self._directory = directory
        self._version = version

    def create(self, quota: Quota) -> None:
        """Create the directory and set the quota."""
        self._directory.mkdir()
        if self._version == 1:  # the period first: with the quota it must make sense
            _write(self._directory / "cpu.cfs_period_us", quota.period_us)
            _write(self._directory / "cpu.cfs_quota_us", quota.quota_us)
        else:
            _write(self._directory / "cgroup.type", "threaded")
            _write(self._directory / "cpu.max", f"{quota.quota_us} {quota.period_us}")

    def add_process(self, pid: int) -> None:
        """Add all threads of a process, and those that they start later."""
        for thread in Path(f"/proc/{pid}/task").iterdir():
            self.add_thread(pid, int(thread.name))

    def add_thread(self, pid: int, thread: int) -> None:
        """Add one thread of a process, and those that it starts later."""
        if self._version == 1:
            return _move(self._directory / "tasks", thread)
        top = self._directory.parent
        if f"/{top.name}" not in Path(f"/proc/{pid}/cgroup").read_text():
            _move(top / "cgroup.procs", pid)
        return _move(self._directory / "cgroup.threads", thread)


@contextlib.contextmanager
def groups(quotas: Sequence[Quota]) -> Iterator[list[Group]]:
    """Create groups with these quotas, empty at first; remove them at the end."""
    hierarchy = Hierarchy.find()
    top = hierarchy.root / f"{PREFIX}{os.getpid()}"
    made = [Group(top / str(index), hierarchy.version) for index in range(len(quotas))]
    try:
        try:
            with signals_later():
                remove_leftovers(hierarchy)
                top.mkdir()
                _write(top / WEIGHT_FILE[hierarchy.version], WEIGHT[hierarchy.version])
                if hierarchy.version == 2:
                    _write(top / "cgroup.subtree_control", "+cpu")
                for group, quota in zip(made, quotas, strict=True):
                    group.create(quota)
        except OSError as error:
            raise BenchError(
                f"CPU quotas need root, and a cgroup in {hierarchy.root}: {error.strerror}"
            ) from None
        yield made
    finally:
        with signals_later():
            _remove(top, hierarchy)


def why_none() -> str | None:
    """Return why no quota can be set here; None if one can."""
    try:
        with groups([Quota(1000, 1000)]):
            return None
    except BenchError as error:
        return str(error)


def remove_leftovers(hierarchy: Hierarchy) -> None:
    """Remove the groups of benchmarks that were killed."""
    for top in hierarchy.root.glob(f"{PREFIX}*"):
        if not Path("/proc", top.name.removeprefix(PREFIX)).exists():
            _remove(top, hierarchy)


def _remove(top: Path, hierarchy: Hierarchy) -> None:
    """Move all members back, then remove the directories."""
    home, members = hierarchy.home, hierarchy.members_file
    for _ in range(ATTEMPTS):
        if not top.exists():
            return
        children = [path for path in top.iterdir() if path.is_dir()]
        holders = [*children, top] if hierarchy.version == 1 else [top]
        for holder in holders:
            for member in (holder / members).read_text().split():
                _move(home / members, int(member))
        for directory in [*children, top]:
            with contextlib.suppress(OSError):  # busy: a process was started meanwhile
                directory.rmdir()


def _write(path: Path, value: object) -> None:
    path.write_text(f"{value}\n")


def _move(path: Path, member: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        _write(path, member)
