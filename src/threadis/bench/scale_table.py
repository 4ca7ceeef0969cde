"""The table of a scaling run, for the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from threadis.bench.cores import SLOW
from threadis.bench.measure import BASELINE
from threadis.bench.scale import SATURATED, ScaleReport, rows
from threadis.bench.table import (
    describe,
    median,
    print_fitting,
    ratio,
    render_errors,
    render_machine,
)


def render(report: ScaleReport, console: Console) -> None:
    """Print how throughput grew, and which split was best."""
    render_machine(report.machine, console)
    kind = f"slow cores of {SLOW}" if report.slow else "real cores"
    console.print(f"{kind}; {describe(report.load)}; samples of {report.load.seconds} s")
    for target in report.targets:
        console.print(f"  {target.name}: {target.version}, allocator {target.allocator}")
    print_fitting(
        console, [lambda: _table(report, is_wide=True), lambda: _table(report, is_wide=False)]
    )
    console.print(
        f"CPU: of bare, divided by that of the busiest core; ! busiest core not within "
        f"{SATURATED[0]} and {SATURATED[1]} of what it may use: look at the CPU ratio instead"
    )
    render_errors(report, console)


def _table(report: ScaleReport, *, is_wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("case", no_wrap=is_wide)
    names = ["cores", "W:N", "k/s", "÷ bare", "CPU"]
    names += ["busiest µs", "all µs"] if is_wide else []
    for name in [*names, "use", *(["repeats"] if is_wide else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    shown = ratio if is_wide else median
    for row in rows(report.samples):
        cpu = [f"{row.busiest_cpu_us:.2f}", f"{row.total_cpu_us:.2f}"] if is_wide else []
        table.add_row(
            str(row.case),
            str(row.point.cores),
            str(row.point.split or BASELINE),
            f"{row.throughput / 1000:.1f}",
            shown(row.ratio),
            shown(row.cpu_ratio),
            *cpu,
            f"{row.use:.2f}" + ("" if row.saturated else "!"),
            *([str(row.repeats)] if is_wide else []),
        )
    return table
