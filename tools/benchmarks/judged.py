"""The pages of goals: figures, and throughput over cores."""

from collections.abc import Sequence
from math import nan

from threadis.bench import figures, scale
from threadis.bench.cores import SLOW, Split
from threadis.bench.measure import BASELINE
from threadis.bench.report import Report
from threadis.bench.scale import Point, ScaleCase, ScaleReport, ScaleRow
from threadis.supervisor import plan
from threadis.system.machine import Cpu, Machine
from tools.benchmarks import markdown as md
from tools.benchmarks.markdown import RESULTS, Files
from tools.benchmarks.svg import Bar, bars


def figures_page() -> Files:
    """The goals, and whether they are reached."""
    report = Report.load(RESULTS / "figures.json")
    found = figures.reached(report)
    lines = [
        *md.head(
            "Our goals, and whether we reach them", "figures", ["figures.json", *_scale_results()]
        ),
        "",
    ]
    lines += [
        "The goals were set before the work began. Most of those on one core are missed; "
        "[what a command costs](../docs/decisions/what-a-command-costs.md) says why.",
        "",
    ]
    lines += ["![CPU per command, compared with the bare server](figures.svg)", ""]
    lines += [*md.machine(report.machine), ""]
    lines += md.table(
        [
            "figure",
            "server",
            "case",
            "goal",
            "measured",
            "reached",
            "CPU µs",
            "bare",
            "k/s",
            "bare",
        ],
        [
            [
                one.figure.title,
                one.figure.block,
                one.case,
                _limit(one),
                md.spread(one.found, 2 if one.figure.unit == "CPU" else 0),
                one.verdict,
                f"{one.row.cpu_us['total']:.2f}",
                f"{one.bare.cpu_us['total']:.2f}",
                md.thousands(one.row),
                md.thousands(one.bare),
            ]
            for one in found
        ],
    )
    lines += ["", *_scale_figures(), "", *_verdicts(report.repeats)]
    rows = [
        Bar(
            f"{one.figure.block.split(',')[0]} {_case_label(one)}",
            one.found.median,
            one.found.low,
            one.found.high,
            mark=one.figure.at_most,
        )
        for one in found
        if one.figure.unit == "CPU"
    ]
    most = max([1.5, *(row.high for row in rows)])
    plot = bars("CPU per command, bare server = 1; black mark: our goal", rows, most)
    return {"figures.md": md.text(lines), "figures.svg": plot}


def _case_label(one: figures.Reached) -> str:
    size = ", 1 KB" if one.figure.block == figures.LARGE else ""
    return one.case.replace(" clients", "").replace(", saturated", ", sat.") + size


def _limit(one: figures.Reached) -> str:
    limit = one.figure.at_most
    return f"≤ {limit:.2f}" if one.figure.unit == "CPU" else f"≤ {limit:.0f} µs"


def _verdicts(repeats: int) -> list[str]:
    return [
        f"Medians of {repeats} repeats with their 95 % interval. *yes*: the median reaches the goal; "
        "*within*: only a part of the interval does; *no*: none of it.",
        "CPU is that of all server processes per command (of MGET: for 100 keys), divided by the "
        "bare server's in the same repeat. "
        "*Saturated*: the servers have 1.5 ms of CPU in every 4 ms. "
        "*Half load*: an open loop at half of the bare server's throughput; the figure is what "
        "thREaDIS adds to the p99.",
    ]


def _scale_results() -> list[str]:
    return [path.name for path in sorted(RESULTS.glob("scale-*.json"))]


def _scale_figures() -> list[str]:
    cells = []
    for name in _scale_results():
        report = ScaleReport.load_from(RESULTS / name)
        for figure in figures.SCALE_FIGURES:
            for row in scale.rows(report.samples):
                shape = (row.case.pipeline, row.case.connections, row.point.cores)
                if row.point.split and shape == (figure.pipeline, figure.connections, figure.cores):
                    cells.append(
                        [
                            f"12 slow cores, P={figure.pipeline}, 200 clients",
                            _server(report),
                            f"≥ {figure.at_least:.0f}×",
                            md.spread(row.ratio, 1),
                            md.spread(row.cpu_ratio, 1),
                            figures.scale_verdict(figure, row.ratio),
                            str(row.point.split),
                        ]
                    )
    head = ["figure", "server", "goal", "throughput", "by CPU", "reached", "workers:instances"]
    return [*md.table(head, cells), "", "More: [scale.md](scale.md)."] if cells else []


def scale_page() -> Files:
    """Throughput over cores."""
    reports = {name: ScaleReport.load_from(RESULTS / name) for name in _scale_results()}
    first = next(iter(reports.values()))
    lines = [*md.head("Throughput over cores", "scale", list(reports)), ""]
    lines += ["![Throughput by split](scale.svg)", "", *md.machine(first.machine), ""]
    kind = f"Each core is a quota of {SLOW} of one CPU" if first.slow else "Real cores"
    lines += [
        f"{kind}; one bare server on one such core is 1. *By CPU* compares what the bare server "
        "spends on a command with what the busiest core spends, and corrects for quotas that are "
        "overrun. *Use* is what the busiest core used of its quota; below 0.95 the clients, or "
        "other work on the machine, were the limit. "
        "Slow cores show how the work divides. They do not show what real cores cost each other: "
        "wake-ups and cache misses. "
        "*No flags* is the split that `threadis serve` chooses by itself.",
        "",
    ]
    drawn: list[Bar] = []
    for report in reports.values():
        found = scale.rows(report.samples)
        lines += [f"## {_server(report)}", "", *_scale_table(found), "", *_tried(report), ""]
        drawn += _by_split(report)
    most = max([1.0, *(row.high for row in drawn)])
    title = "Throughput by workers : instances; one stock server on one such core = 1"
    depths = ["one command at a time", "pipelines of 16"]
    return {"scale.md": md.text(lines), "scale.svg": bars(title, drawn, most * 1.02, depths)}


def _by_split(report: ScaleReport) -> list[Bar]:
    """What each split reached: the median of its repeats, or the one time that it was tried."""
    found = scale.rows(report.samples)
    bare = {row.case: row.throughput for row in found if not row.point.split}
    reached: dict[Point, dict[ScaleCase, Bar]] = {}
    for sample in report.samples:
        if sample.repeat is None and sample.point.split:
            ratio = sample.result.throughput / bare[sample.case]
            of_point = reached.setdefault(sample.point, {})
            of_point[sample.case] = Bar("", ratio, ratio, ratio)
    for row in found:
        if row.point.split:
            of_point = reached.setdefault(row.point, {})
            of_point[row.case] = Bar("", row.ratio.median, row.ratio.low, row.ratio.high)
    out: list[Bar] = []
    for cores in sorted({point.cores for point in reached}):
        shipped = _shipped(cores)
        points = [point for point in reached if point.cores == cores]
        if shipped not in [point.split for point in points]:
            points.append(Point(cores, shipped))
        for point in sorted(points, key=lambda one: one.split.workers if one.split else 0):
            label = f"{cores} cores, {point.split}" + (", no flags" * (point.split == shipped))
            for colour, case in enumerate(bare):
                one = reached.get(point, {}).get(case, Bar("", nan, nan, nan))
                out.append(one._replace(label="" if colour else label, colour=colour))
    return out


def _shipped(cores: int) -> Split:
    """The split that `threadis serve` chooses without flags."""
    made = plan.make(Machine(tuple(map(Cpu, range(cores)))))
    return Split(workers=len(made.worker_cpus), instances=len(made.instance_cpus))


def _scale_table(found: Sequence[ScaleRow]) -> list[str]:
    head = ["load", "cores", "W:N", "k/s", "÷ bare", "by CPU", "busiest core, µs", "all, µs", "use"]
    return md.table(
        head,
        [
            [
                str(row.case),
                str(row.point.cores),
                str(row.point.split or BASELINE),
                f"{row.throughput / 1000:.1f}",
                md.spread(row.ratio) if row.point.split else "1",
                md.spread(row.cpu_ratio) if row.point.split else "1",
                f"{row.busiest_cpu_us:.2f}",
                f"{row.total_cpu_us:.2f}",
                f"{row.use:.2f}",
            ]
            for row in found
        ],
    )


def _tried(report: ScaleReport) -> list[str]:
    """The splits that were tried once to find the best."""
    cells: dict[tuple[str, int], list[str]] = {}
    for sample in report.samples:
        if sample.repeat is None:
            key = (str(sample.case), sample.point.cores)
            rate = f"{sample.point.split} {sample.result.throughput / 1000:.0f}"
            cells.setdefault(key, []).append(rate)
    if not cells:
        return []
    rows = [[case, str(cores), ", ".join(tried)] for (case, cores), tried in cells.items()]
    return ["Each split tried once (k/s):", "", *md.table(["load", "cores", "tried"], rows)]


def _server(report: ScaleReport) -> str:
    return report.targets[0].version if report.targets else report.setup.server
