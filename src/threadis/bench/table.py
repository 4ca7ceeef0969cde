"""A report for people, on the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from threadis.bench.cores import SLOW
from threadis.bench.load import Load
from threadis.bench.machine import Machine
from threadis.bench.measure import BASELINE
from threadis.bench.report import Block, Report, Row
from threadis.bench.scale import SATURATED, ScaleReport
from threadis.bench.scale import rows as scale_rows
from threadis.bench.spread import Spread

WIDTH = 170  # columns where there is no terminal to ask


def console() -> Console:
    """Standard output."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def render(report: Report, console: Console) -> None:
    """Everything, block by block, then what went wrong."""
    render_machine(report.machine, console)
    for block in report.blocks:
        _render_block(block, report.repeats, console)
    render_errors(report, console)


def render_machine(machine: Machine, console: Console) -> None:
    """Where it was measured."""
    console.print(
        f"{machine.cpu}, {machine.kernel}, load {machine.load_average}; "
        f"threadis {machine.threadis} ({machine.build_profile} build)"
    )
    if machine.build_profile != "release":
        console.print("this is no release build: its figures mean nothing", style="bold yellow")


def render_errors(report: Report | ScaleReport, console: Console) -> None:
    """Replies that were wrong."""
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
    console.print(_table(block.rows))


def describe(load: Load) -> str:
    """What the cases of a block have in common."""
    keys = f"{load.key_count} keys, {'Zipf' if load.zipf is not None else 'uniform'}"
    return f"{load.connections} connections, {load.value_size} byte values, {keys}"


def _table(rows: Iterable[Row]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("case")
    table.add_column("target")
    names = ["k/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "CPU ÷ bare", "k/s ÷ bare"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("CPU µs by part", no_wrap=True)
    case = None
    for row in rows:
        if case not in (None, row.case):
            table.add_section()
        total = row.cpu_us.get("total")
        parts = {part: used for part, used in row.cpu_us.items() if part != "total"}
        table.add_row(
            "" if case == row.case else row.case,
            row.target,
            f"{row.throughput / 1000:.3g}",
            f"{row.p50_us:.0f}",
            f"{row.p99_us:.0f}",
            f"{row.p999_us:.0f}",
            "-" if total is None else f"{total:.2f}",
            ratio(row.cpu_ratio),
            ratio(row.throughput_ratio),
            "  ".join(f"{part} {used:.2f}" for part, used in parts.items())
            if len(parts) > 1
            else "",
        )
        case = row.case
    return table


def ratio(spread: Spread | None, digits: int = 2) -> str:
    """A median with its interval."""
    if spread is None:
        return ""
    low, high = f"{spread.low:.{digits}f}", f"{spread.high:.{digits}f}"
    return rf"{spread.median:.{digits}f} \[{low} {high}]"


def render_scale(report: ScaleReport, console: Console) -> None:
    """How throughput grew, and which split was best."""
    render_machine(report.machine, console)
    kind = f"slow cores of {SLOW}" if report.slow else "real cores"
    console.print(f"{kind}; {describe(report.load)}; samples of {report.load.seconds} s")
    for target in report.targets:
        console.print(f"  {target.name}: {target.version}, allocator {target.allocator}")
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("case")
    names = ["cores", "W:N", "k/s", "÷ bare", "CPU of bare ÷ busiest core's"]
    names += ["busiest µs", "all µs", "use", "repeats"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in scale_rows(report.samples):
        table.add_row(
            str(row.case),
            str(row.point.cores),
            str(row.point.split or BASELINE),
            f"{row.throughput / 1000:.1f}",
            ratio(row.ratio),
            ratio(row.cpu_ratio),
            f"{row.busiest_cpu_us:.2f}",
            f"{row.total_cpu_us:.2f}",
            f"{row.use:.2f}" + ("" if row.saturated else "!"),
            str(row.repeats),
        )
    console.print(table)
    console.print(
        f"! busiest core not within {SATURATED[0]} and {SATURATED[1]} of what it may use: "
        "look at the CPU ratio instead"
    )
    render_errors(report, console)
