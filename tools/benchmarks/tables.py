"""Pages that are tables, block by block: peers, and the suites."""

from collections.abc import Sequence

from threadis.bench.measure import BASELINE
from threadis.bench.report import Block, Report, Row
from threadis.bench.spread import Spread
from tools.benchmarks import markdown as md
from tools.benchmarks.markdown import RESULTS, Files
from tools.benchmarks.svg import Bar, bars

UNSHOWN = {"io-threads"}  # on one CPU they wait for each other: the figures say nothing
COLOURS_OF = {BASELINE: 2, "threadis": 0}  # the others are grey
MOST = 6.0  # times the CPU of the bare server; longer bars are cut


def peers_page() -> Files:
    """Compared with other ways to use stock servers."""
    report = Report.load(RESULTS / "full.json")
    lines = [
        *md.head("Compared with others", "full", ["full.json"]),
        "",
        *md.machine(report.machine),
        "",
    ]
    files = {}
    for block in report.blocks:
        name = f"peers-{block.name}.svg"
        files[name] = _peer_bars(block)
        lines += [f"## {block.targets[0].version}", "", f"![CPU per command]({name})", ""]
        rows = [row for row in block.rows if row.target not in UNSHOWN]
        lines += [*_load(block), "", *_rows_table(rows), ""]
    lines += [
        "All processes share one CPU. I/O threads were measured, too, but they wait for each other "
        "in a loop; on one CPU their figures say nothing about them, so they are only in the file. "
        "The cluster's clients know its slots: they have a connection to each node, and a pipeline "
        "becomes one write to each. Envoy, Predixy and twemproxy have the same number of instances "
        "behind them as thREaDIS, on Unix sockets, with one thread.",
    ]
    return {"peers.md": md.text(lines), **files}


def _peer_bars(block: Block) -> str:
    shown = []
    for row in block.rows:
        if row.target in UNSHOWN:
            continue
        spread = row.cpu_ratio or Spread(1.0, 1.0, 1.0)
        case = f"{row.case.upper().replace(' P=', ', depth ')}: " if row.target == BASELINE else ""
        colour = COLOURS_OF.get(row.target, 6)
        shown.append(Bar(f"{case}{row.target}", spread.median, spread.low, spread.high, colour))
    return bars(f"CPU per command, bare {block.name} = 1", shown, MOST)


def rows_page(title: str, suite: str, text: str, *, plot: bool = False) -> Files:
    """A page of tables, block by block."""
    report = Report.load(RESULTS / f"{suite}.json")
    lines = [
        *md.head(title, suite, [f"{suite}.json"]),
        "",
        text,
        "",
        *md.machine(report.machine),
        "",
    ]
    files = {}
    for index, block in enumerate(report.blocks):
        lines += [f"## {block.name}, {block.targets[0].version}", ""]
        if plot:
            name = f"{suite}-{index}.svg"
            lines += [f"![p50 and p99]({name})", ""]
            files[name] = _latency_bars(block)
        lines += [*_load(block), "", *_rows_table(block.rows), ""]
    lines += _idle(report)
    return {f"{suite}.md": md.text(lines), **files}


def _latency_bars(block: Block) -> str:
    targets = list(dict.fromkeys(row.target for row in block.rows))
    shown = []
    for case in dict.fromkeys(row.case for row in block.rows):
        rows = [row for row in block.rows if row.case == case]
        for name, values in (
            ("p50", [row.p50_us for row in rows]),
            ("p99", [row.p99_us for row in rows]),
        ):
            for index, value in enumerate(values):
                label = "" if index else f"{case}, {name}"
                shown.append(
                    Bar(label, value, value, value, colour=targets.index(rows[index].target))
                )
    most = max(bar.value for bar in shown)
    return bars("Latency, µs", shown, min(most, 1000.0), targets)


def _idle(report: Report) -> list[str]:
    if not report.idle:
        return []
    rows = [
        [
            cost.target,
            cost.part,
            f"{cost.connections:,}",
            f"{cost.rss_before / 1e6:.1f}",
            f"{cost.rss_after / 1e6:.1f}",
            f"{cost.per_connection:,.0f}",
        ]
        for cost in report.idle
    ]
    head = ["", "processes", "connections", "MB before", "MB with them", "bytes each"]
    return ["## Memory of idle connections", "", *md.table(head, rows), ""]


def _rows_table(found: Sequence[Row]) -> list[str]:
    head = ["", "", "CPU µs", "CPU ÷ bare", "k/s", "k/s ÷ bare", "p50 µs", "p99 µs"]
    head += ["p50 added", "p99 added", "CPU µs by part"]
    cells = []
    for row in found:
        parts = {part: used for part, used in row.cpu_us.items() if part != "total"}
        by_part = ", ".join(f"{part} {used:.3g}" for part, used in parts.items())
        cells.append(
            [
                row.case if row.target == BASELINE else "",
                row.target,
                f"{row.cpu_us['total']:.3g}",
                md.spread(row.cpu_ratio),
                md.thousands(row),
                md.spread(row.throughput_ratio),
                f"{row.p50_us:.0f}",
                f"{row.p99_us:.0f}",
                md.spread(row.p50_added_us, 0),
                md.spread(row.p99_added_us, 0),
                by_part if len(parts) > 1 else "",
            ]
        )
    return md.table(head, cells)


def _load(block: Block) -> list[str]:
    loads = [case.load for case in block.cases]
    counts = sorted({load.connections for load in loads})
    allocators = sorted({target.allocator for target in block.targets})
    return [
        f"Servers on CPU {md.numbers(block.setup.cpus)}, load on CPU {md.numbers(loads[0].cpus)}; "
        f"{block.setup.instances} instances, {block.setup.workers} worker; "
        f"{md.numbers(counts)} clients; values of {loads[0].value_size} bytes; "
        f"samples of {loads[0].seconds:g} s; allocator {' and '.join(allocators)}.",
    ]
