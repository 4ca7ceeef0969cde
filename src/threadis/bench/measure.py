"""Runs the loads: every target in turn, again and again, so that noise hits all of them alike."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from threadis.bench.cpu import CpuMeter
from threadis.bench.load import Load, LoadResult
from threadis.bench.targets import STARTERS, Setup, Target, running_elsewhere

BASELINE = "bare"  # what every other target is compared with


class Workload(msgspec.Struct, frozen=True):
    """One row of the table."""

    mix: str
    pipeline: int

    def __str__(self) -> str:
        return f"{self.mix} P={self.pipeline}"


class Sample(msgspec.Struct, frozen=True):
    """One target under one workload, once."""

    target: str
    workload: Workload
    repeat: int
    result: LoadResult
    cpu_us: dict[str, float]  # per command: each part of the servers, and total; may be empty


class Elsewhere(msgspec.Struct, frozen=True):
    """A server that is running already."""

    address: str
    pid: int | None = None
    password: str | None = None


@contextlib.contextmanager
def started(
    names: Sequence[str], setup: Setup, elsewhere: Elsewhere | None = None
) -> Iterator[list[Target]]:
    """All targets, running side by side; those that are not measured just now are idle."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(STARTERS[name](setup)) for name in names]
        if elsewhere is not None:
            other = running_elsewhere(elsewhere.address, elsewhere.pid, elsewhere.password)
            targets.append(stack.enter_context(other))
        yield targets


def alternate(
    targets: Sequence[Target],
    workloads: Sequence[Workload],
    repeats: int,
    load: Load,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Sample]:
    """Measure every target under every workload, ``repeats`` times, beginning with another each."""
    for target in targets:
        progress(f"preloading {target.name}")
        _aimed(load, target).preload()
    for workload in workloads:
        for repeat in range(repeats):
            first = repeat % len(targets)
            for target in [*targets[first:], *targets[:first]]:
                progress(f"{workload}, repeat {repeat + 1} of {repeats}: {target.name}")
                yield _measure(target, workload, repeat, _aimed(load, target))


def _aimed(load: Load, target: Target) -> Load:
    return msgspec.structs.replace(load, address=target.address, password=target.password)


def _measure(target: Target, workload: Workload, repeat: int, load: Load) -> Sample:
    load = msgspec.structs.replace(
        load, mix=workload.mix, pipeline=workload.pipeline, seed=load.seed + repeat
    )
    meter = CpuMeter(target.parts)
    result = load.run()
    cpu_us = meter.us_per_command(max(result.commands_total, 1)) if target.parts else {}
    return Sample(target.name, workload, repeat, result, cpu_us)
