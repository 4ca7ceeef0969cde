"""Figures from samples: medians, ratios within one repeat, their spread; as JSON and as a table."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import msgspec
from rich.console import Console
from rich.table import Table

from threadis.bench.load import Load
from threadis.bench.machine import Machine
from threadis.bench.measure import BASELINE, Sample, Workload
from threadis.bench.targets import Setup, Target


class Spread(msgspec.Struct, frozen=True):
    """Several measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Of the values; None if there are none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


class Row(msgspec.Struct, frozen=True):
    """One target under one workload: medians over the repeats."""

    target: str
    workload: Workload
    throughput: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: dict[str, float]  # per command: each part, and total
    cpu_ratio: Spread | None  # to the bare server in the same repeat; None: not known
    throughput_ratio: Spread | None
    load_cpu_us: float  # what the load generator itself spent per command
    errors: int  # over all repeats


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of one benchmark; what ``--json`` saves."""

    machine: Machine
    setup: Setup
    load: Load
    repeats: int
    targets: list[Target]
    rows: list[Row]
    samples: list[Sample]

    @property
    def errors(self) -> int:
        """Wrong, missing or refused replies, over everything."""
        return sum(sample.result.errors for sample in self.samples)

    def to_json(self) -> bytes:
        """Readable JSON, without secrets and without paths of this machine."""
        hidden = msgspec.structs.replace(
            self,
            setup=msgspec.structs.replace(self.setup, server=Path(self.setup.server).name),
            targets=[msgspec.structs.replace(target, password=None) for target in self.targets],
        )
        return msgspec.json.format(msgspec.json.encode(hidden), indent=2) + b"\n"


def rows(samples: Sequence[Sample]) -> list[Row]:
    """One row a target and workload, in the order they were first measured in."""
    keys = dict.fromkeys((sample.workload, sample.target) for sample in samples)
    return [_row(workload, target, samples) for workload, target in keys]


def _row(workload: Workload, target: str, samples: Iterable[Sample]) -> Row:
    mine: dict[int, Sample] = {}
    base: dict[int, Sample] = {}
    for sample in samples:
        if sample.workload == workload:
            if sample.target == target:
                mine[sample.repeat] = sample
            if sample.target == BASELINE:
                base[sample.repeat] = sample
    own = list(mine.values())

    def median(value: Callable[[Sample], float]) -> float:
        return statistics.median(map(value, own))

    def ratios(value: Callable[[Sample], float]) -> Spread | None:
        pairs = [(value(mine[repeat]), value(base[repeat])) for repeat in mine.keys() & base.keys()]
        if target == BASELINE:
            return None
        return Spread.of([one / other for one, other in pairs if one and other])

    return Row(
        target=target,
        workload=workload,
        throughput=median(lambda sample: sample.result.throughput),
        p50_us=median(lambda sample: sample.result.p50_us),
        p99_us=median(lambda sample: sample.result.p99_us),
        p999_us=median(lambda sample: sample.result.p999_us),
        cpu_us={
            part: statistics.median(sample.cpu_us[part] for sample in own) for part in own[0].cpu_us
        },
        cpu_ratio=ratios(lambda sample: sample.cpu_us.get("total", 0.0)),
        throughput_ratio=ratios(lambda sample: sample.result.throughput),
        load_cpu_us=median(
            lambda sample: (
                sample.result.load_cpu_seconds * 1e6 / max(sample.result.commands_total, 1)
            )
        ),
        errors=sum(sample.result.errors for sample in own),
    )


def render(report: Report, console: Console) -> None:
    """The report for people."""
    machine, setup, load = report.machine, report.setup, report.load
    keys = f"{load.key_count} keys, {'Zipf' if load.zipf is not None else 'uniform'}"
    console.print(
        f"{machine.cpu}, {machine.kernel}, load {machine.load_average}; "
        f"threadis {machine.threadis} ({machine.build_profile} build)"
    )
    console.print(
        f"servers on CPU {setup.cpus or 'any'}, load on CPU {load.cpus or 'any'}; "
        f"{load.connections} connections, {load.value_size} byte values, {keys}; "
        f"medians of {report.repeats} repeats of {load.seconds} s, ratios with \\[lowest highest]"
    )
    if machine.build_profile != "release":
        console.print("this is no release build: its figures mean nothing", style="bold yellow")
    if setup.preload_jemalloc:
        console.print("LD_PRELOAD gives jemalloc to every server and all its child processes")
    for target in report.targets:
        console.print(f"  {target.name}: {target.version}, allocator {target.allocator}")
    allocators = {target.allocator for target in report.targets}
    if len(allocators) > 1:
        console.print("the allocators differ: the ratios compare them too", style="bold yellow")
    console.print(_table(report.rows))
    if report.errors:
        console.print(f"{report.errors} WRONG REPLIES", style="bold red")
        for sample in report.samples:
            for example in sample.result.examples:
                console.print(f"  {sample.target}, {sample.workload}: {example}", markup=False)


def _table(rows: Iterable[Row]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("workload")
    table.add_column("target")
    names = ["k/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "CPU ÷ bare", "k/s ÷ bare"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("CPU µs by part", no_wrap=True)
    workload = None
    for row in rows:
        if workload not in (None, row.workload):
            table.add_section()
        total = row.cpu_us.get("total")
        parts = {part: used for part, used in row.cpu_us.items() if part != "total"}
        table.add_row(
            "" if workload == row.workload else str(row.workload),
            row.target,
            f"{row.throughput / 1000:.0f}",
            f"{row.p50_us:.0f}",
            f"{row.p99_us:.0f}",
            f"{row.p999_us:.0f}",
            "-" if total is None else f"{total:.2f}",
            _ratio(row.cpu_ratio),
            _ratio(row.throughput_ratio),
            "  ".join(f"{part} {used:.2f}" for part, used in parts.items())
            if len(parts) > 1
            else "",
        )
        workload = row.workload
    return table


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return rf"{spread.median:.2f} \[{spread.low:.2f} {spread.high:.2f}]"
