"""Runs the loads: every target in turn, again and again, so that noise affects all alike."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from threadis.bench.cgroup import Quota, groups
from threadis.bench.cpu import CpuMeter
from threadis.bench.load import Load, LoadResult
from threadis.bench.peers import STARTERS
from threadis.bench.targets import Setup, Target, running_elsewhere
from threadis.bench.workloads import WORKLOADS

BASELINE = "bare"  # what every other target is compared with
CALIBRATIONS = 3  # runs of the bare server whose median says what half load is

Step = Callable[[str], None]  # told what begins now


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a table: a load, and special conditions of the servers."""

    name: str
    load: Load  # without an address
    of_bare: float | None = None  # an open loop at this share of the bare server's throughput
    quota: Quota | None = None  # of one CPU, shared by all processes of the target
    workload: str = "plain"  # a name of WORKLOADS


class Sample(msgspec.Struct, frozen=True):
    """One measurement of one target in one case."""

    case: str
    target: str
    repeat: int
    result: LoadResult
    cpu_us: dict[str, float]  # per command: each part of the servers, and total; may be empty

    @property
    def subject(self) -> str:
        """Return the name of the target."""
        return self.target


class Elsewhere(msgspec.Struct, frozen=True):
    """A server that is running already."""

    address: str
    pid: int | None = None
    password: str | None = None


@contextlib.contextmanager
def started(
    names: Sequence[str], setup: Setup, elsewhere: Elsewhere | None = None
) -> Iterator[list[Target]]:
    """Start all targets side by side; those that are not being measured are idle."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(STARTERS[name](setup)) for name in names]
        if elsewhere is not None:
            other = running_elsewhere(elsewhere.address, elsewhere.pid, elsewhere.password)
            targets.append(stack.enter_context(other))
        yield targets


def depth_cases(load: Load) -> list[Case]:
    """Return GET and SET, without and with pipelines."""
    return [
        Case(name=f"{mix} P={depth}", load=replace(load, mix=mix, pipeline=depth))
        for depth in (1, 16, 64)
        for mix in ("get", "set")
    ]


def steps(targets: int, cases: Sequence[Case], repeats: int) -> int:
    """Return how often :func:`alternate` calls ``step``."""
    calibrations = CALIBRATIONS * sum(case.of_bare is not None for case in cases)
    return targets + calibrations + targets * len(cases) * repeats


def alternate(
    targets: Sequence[Target],
    cases: Sequence[Case],
    repeats: int,
    step: Step = lambda _: None,
) -> Iterator[Sample]:
    """Measure every target in every case, ``repeats`` times, starting with another target each
    time.

    The repeats are the outer loop: an interrupted benchmark has a little of everything.
    """
    for target in targets:
        step(f"preloading {target.name}")
        with_address(cases[0].load, target).preload()
        for workload in {case.workload for case in cases}:
            with target.client() as client:
                WORKLOADS[workload].prepare(client)
    cases = [_calibrated(case, targets, step) for case in cases]
    for repeat in range(repeats):
        for case in cases:
            first = repeat % len(targets)
            for target in [*targets[first:], *targets[:first]]:
                step(f"repeat {repeat + 1} of {repeats}, {case.name}: {target.name}")
                yield _measure(target, case, repeat)


def with_address(load: Load, target: Target) -> Load:
    """Return the load with the target's address."""
    return replace(load, address=target.address, password=target.password)


def _calibrated(case: Case, targets: Sequence[Target], step: Step) -> Case:
    """Return the case with the rate that ``of_bare`` asks for, the same for all targets and
    repeats.
    """
    if case.of_bare is None:
        return case
    (bare,) = (target for target in targets if target.name == BASELINE)
    found = []
    for _ in range(CALIBRATIONS):
        step(f"{case.name}: how much the bare server can do")
        found.append(with_address(case.load, bare).run().throughput)
    load = replace(case.load, rate=case.of_bare * statistics.median(found))
    return replace(case, load=load)


def _measure(target: Target, case: Case, repeat: int) -> Sample:
    load = with_address(replace(case.load, seed=case.load.seed + repeat), target)
    with under_quota(case.quota, target):
        meter = CpuMeter(target.parts)
        result = WORKLOADS[case.workload].run(load, meter.restart)
        cpu_us = meter.us_per_command(max(result.commands_total, 1)) if target.parts else {}
    return Sample(case.name, target.name, repeat, result, cpu_us)


@contextlib.contextmanager
def under_quota(quota: Quota | None, target: Target) -> Iterator[None]:
    """Put all processes of the target into one group with this quota."""
    if quota is None:
        yield
        return
    with groups([quota]) as (group,):
        for pids in target.parts.values():
            for pid in pids:
                group.add_process(pid)
        yield
