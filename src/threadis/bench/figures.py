"""The goals of thREaDIS: what is measured, and which value is to be reached."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from threadis.bench.cgroup import Quota
from threadis.bench.load import Load
from threadis.bench.measure import BASELINE, Case
from threadis.bench.report import Report, Row
from threadis.bench.spread import Spread
from threadis.bench.suite import Plan
from threadis.bench.table import median, print_fitting, ratio
from threadis.bench.targets import Setup

SATURATING = Quota(1500, 4000)  # of the servers' CPU: the load generator is never what limits
OPS = ("get", "set")
HALF = 0.5  # of the bare server's throughput

REDIS, VALKEY, LARGE, MANY = "redis", "valkey", "valkey, 1 KB", "redis, 4 instances"


class Figure(NamedTuple):
    """One row of the table: the median is to be at most this."""

    title: str
    block: str
    cases: list[str]
    unit: str  # "CPU" ratio, or "µs" added
    at_most: float


class Reached(NamedTuple):
    """One case of a figure, and its result."""

    figure: Figure
    case: str
    bare: Row
    row: Row
    found: Spread

    @property
    def verdict(self) -> str:
        """Return "yes", "within" (the interval includes the goal), or "no"."""
        if self.found.median <= self.figure.at_most:
            return "yes"
        return "within" if self.found.low <= self.figure.at_most else "no"


def _both(depth: int, clients: int, more: str = "") -> list[str]:
    return [f"{op} P={depth}, {clients} clients{more}" for op in OPS]


SATURATED, HALF_LOAD = ", saturated", ", half load"
MGET = "mget:100 P=1, 50 clients"

FIGURES = [
    Figure("P=1, 50 clients", REDIS, _both(1, 50), "CPU", 1.05),
    Figure("P=1, 200 clients, saturated", REDIS, _both(1, 200, SATURATED), "CPU", 0.90),
    Figure("P=16, 50 clients", REDIS, _both(16, 50), "CPU", 1.05),
    Figure("P=16, 50 and 200 clients", VALKEY, _both(16, 50) + _both(16, 200), "CPU", 1.00),
    Figure("P=64, 200 clients", VALKEY, _both(64, 200), "CPU", 1.05),
    Figure(
        "1 KB GET, P=16 and 64",
        LARGE,
        ["get P=16, 50 clients", "get P=64, 50 clients"],
        "CPU",
        1.15,
    ),
    Figure("MGET of 100 keys over 4 instances", MANY, [MGET], "CPU", 1.3),
    Figure("p99 added at half load, P=1, 50 clients", REDIS, _both(1, 50, HALF_LOAD), "µs", 100.0),
]


class ScaleFigure(NamedTuple):
    """Throughput on slow cores, compared with one bare server on one: to be at least this."""

    pipeline: int
    at_least: float
    cores: int = 12
    connections: int = 200


SCALE_FIGURES = [ScaleFigure(1, 11.0), ScaleFigure(16, 10.0)]


def scale_verdict(figure: ScaleFigure, found: Spread) -> str:
    """Return the verdict, as of other figures."""
    if found.median >= figure.at_least:
        return "yes"
    return "within" if found.high >= figure.at_least else "no"


def plans(setups: dict[str, Setup], load: Load, only: Callable[[str], bool]) -> list[Plan]:
    """Return the blocks of all figures, except for servers that are missing or not selected."""
    found = []
    for name in (REDIS, VALKEY, LARGE, MANY):
        setup = setups.get(name.split(",")[0])
        names = [case for figure in FIGURES if figure.block == name for case in figure.cases]
        cases = [_case(case, name, load) for case in names if only(f"{name}: {case}")]
        if setup is None or not cases:
            continue
        if name == MANY:
            setup = replace(setup, instances=4)
        found.append(Plan(name=name, setup=setup, targets=[BASELINE, "threadis"], cases=cases))
    return found


def _case(name: str, block: str, load: Load) -> Case:
    """Parse a case from its name."""
    words = name.replace(",", "").split()
    load = replace(
        load,
        mix=words[0],
        pipeline=int(words[1].removeprefix("P=")),
        connections=int(words[2]),
        value_size=1024 if block == LARGE else 16,
    )
    return Case(
        name=name,
        load=load,
        of_bare=HALF if name.endswith(HALF_LOAD) else None,
        quota=SATURATING if name.endswith(SATURATED) else None,
    )


def reached(report: Report) -> list[Reached]:
    """Return the results, case by case, of the figures that were measured."""
    rows = {
        (block.name, row.case, row.target): row for block in report.blocks for row in block.rows
    }
    found = []
    for figure in FIGURES:
        for case in figure.cases:
            row = rows.get((figure.block, case, "threadis"))
            spread = row and (row.cpu_ratio if figure.unit == "CPU" else row.p99_added_us)
            if row and spread:
                bare = rows[figure.block, case, BASELINE]
                found.append(Reached(figure, case, bare, row, spread))
    return found


def render(results: Sequence[Reached], console: Console) -> None:
    """Print the verdicts."""
    print_fitting(
        console, [lambda: _table(results, is_wide=True), lambda: _table(results, is_wide=False)]
    )


def _table(results: Sequence[Reached], *, is_wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("figure", "server", "case"):
        table.add_column(name)
    more = ["CPU µs", "bare", "k/s", "bare", "repeats"] if is_wide else []
    for name in ("to reach", "measured", *more):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    shown = ratio if is_wide else median
    for one in results:
        digits = 2 if one.figure.unit == "CPU" else 0
        unit = "" if one.figure.unit == "CPU" else " µs"
        cells = [
            *_pair(one, lambda row: f"{row.cpu_us['total']:.2f}"),
            *_pair(one, lambda row: f"{row.throughput / 1000:.0f}"),
            str(one.row.repeats),
        ]
        table.add_row(
            one.figure.title,
            one.figure.block,
            one.case.split()[0],
            f"≤ {one.figure.at_most:.{digits}f}{unit}",
            shown(one.found, digits),
            *(cells if is_wide else []),
            one.verdict,
        )
    return table


def _pair(one: Reached, value: Callable[[Row], str]) -> Iterable[str]:
    return value(one.row), value(one.bare)
