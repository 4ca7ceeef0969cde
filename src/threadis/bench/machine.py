"""The machine and the build of a measurement."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec

from threadis import _core


class Machine(msgspec.Struct, frozen=True):
    """The machine and the build."""

    date: str
    cpu: str
    cpus: list[int]  # that this process may use
    kernel: str
    load_average: float  # over the last minute, before the benchmark: how quiet it was
    python: str
    threadis: str
    build_profile: str  # of the Rust core; only "release" gives figures worth keeping

    @classmethod
    def here(cls) -> Self:
        """Describe this machine, now."""
        return cls(
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            cpu=_cpu_model(),
            cpus=sorted(os.sched_getaffinity(0)),
            kernel=f"{platform.system()} {platform.release()}",
            load_average=round(os.getloadavg()[0], 2),
            python=platform.python_version(),
            threadis=version("threadis"),
            build_profile=_core.build_profile(),
        )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
