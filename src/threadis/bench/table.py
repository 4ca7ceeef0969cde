"""A report as tables on the terminal."""

import enum
import functools
from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from threadis.bench.load import Load
from threadis.bench.machine import Machine
from threadis.bench.report import Block, Report, Row
from threadis.bench.scale import ScaleReport
from threadis.bench.spread import Spread

UNLIMITED = 10_000  # columns, to ask how wide a table would like to be
WIDTH = 170  # columns where there is no terminal to ask


def console() -> Console:
    """Return standard output."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def render(report: Report, console: Console) -> None:
    """Print everything, block by block, then the errors."""
    render_machine(report.machine, console)
    for block in report.blocks:
        _render_block(block, report.repeats, console)
    render_errors(report, console)


def render_machine(machine: Machine, console: Console) -> None:
    """Print where it was measured."""
    console.print(
        f"{machine.cpu}, {machine.kernel}, load {machine.load_average}; "
        f"threadis {machine.threadis} ({machine.build_profile} build)"
    )
    if machine.build_profile != "release":
        console.print("this is not a release build: its figures mean nothing", style="bold yellow")


def render_errors(report: Report | ScaleReport, console: Console) -> None:
    """Print wrong replies."""
    if not report.errors:
        return
    console.print(f"{report.errors} WRONG REPLIES", style="bold red")
    for sample in report.samples:
        for example in sample.result.examples:
            console.print(f"  {sample.subject}, {sample.case}: {example}", markup=False)


def _render_block(block: Block, repeats: int, console: Console) -> None:
    setup, load = block.setup, block.cases[0].load
    console.print(
        f"{block.name}: servers on CPU {setup.cpus or 'any'}, load on CPU {load.cpus or 'any'}; "
        f"{describe(load)}; medians of {repeats} repeats of {load.seconds} s, "
        "ratios with the interval of the median"
    )
    if setup.preload_jemalloc:
        console.print("LD_PRELOAD gives jemalloc to every server and all its child processes")
    for target in block.targets:
        console.print(f"  {target.name}: {target.version}, allocator {target.allocator}")
    if len({target.allocator for target in block.targets}) > 1:
        console.print("the allocators differ: the ratios compare them too", style="bold yellow")
    print_fitting(console, [functools.partial(_table, block.rows, level) for level in Level])


def describe(load: Load) -> str:
    """Describe what the cases of a block have in common."""
    keys = f"{load.key_count} keys, {'Zipf' if load.zipf is not None else 'uniform'}"
    return f"{load.connections} connections, {load.value_size} byte values, {keys}"


class Level(enum.IntEnum):
    """How much of a table is shown: as much as the terminal's width allows."""

    ALL = 0
    NO_PARTS = 1
    NO_TAILS = 2
    NO_INTERVALS = 3


LEFT_OUT = "narrow: intervals, p99.9 and the parts of CPU are left out; --json has everything"


def print_fitting(console: Console, tables: Sequence[Callable[[], Table]]) -> None:
    """Print the first table that fits the width, else the last one."""
    found = None
    for make in tables:
        found = make()
        unlimited = console.options.update(max_width=UNLIMITED)
        if Measurement.get(console, unlimited, found).maximum <= console.width:
            break
    if found is not None:
        console.print(found)


def _table(rows: Iterable[Row], level: Level) -> Table:
    """Build a table with cases as headings, so that the columns are left to the numbers."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    if level is Level.NO_INTERVALS:
        table.caption, table.caption_justify = LEFT_OUT, "left"
    table.add_column("case, target", no_wrap=True)
    names = ["k/s", "p50 µs", "p99 µs", *(["p99.9 µs"] if level < Level.NO_TAILS else [])]
    for name in [*names, "CPU µs", "CPU ÷ bare", "k/s ÷ bare"]:
        table.add_column(name, justify="right", no_wrap=True)
    if level is Level.ALL:
        table.add_column("CPU µs by part", no_wrap=True)
    case = None
    for row in rows:
        if case != row.case:
            if case is not None:
                table.add_section()
            table.add_row(escape(row.case), style="bold")
        case = row.case
        table.add_row(*_cells(row, level))
    return table


def _cells(row: Row, level: Level) -> list[str]:
    total = row.cpu_us.get("total")
    parts = {part: used for part, used in row.cpu_us.items() if part != "total"}
    shown = ratio if level < Level.NO_INTERVALS else median
    cells = [
        f"  {escape(row.target)}",
        f"{row.throughput / 1000:.3g}",
        f"{row.p50_us:.0f}",
        f"{row.p99_us:.0f}",
        f"{row.p999_us:.0f}",
        "-" if total is None else f"{total:.2f}",
        shown(row.cpu_ratio),
        shown(row.throughput_ratio),
        "  ".join(f"{part} {used:.2f}" for part, used in parts.items()) if len(parts) > 1 else "",
    ]
    if level > Level.ALL:
        cells.pop()
    if level >= Level.NO_TAILS:
        cells.pop(4)
    return cells


def median(spread: Spread | None, digits: int = 2) -> str:
    """Format a median alone."""
    return "" if spread is None else f"{spread.median:.{digits}f}"


def ratio(spread: Spread | None, digits: int = 2) -> str:
    """Format a median with its interval."""
    if spread is None:
        return ""
    low, high = f"{spread.low:.{digits}f}", f"{spread.high:.{digits}f}"
    return rf"{spread.median:.{digits}f} \[{low} {high}]"
