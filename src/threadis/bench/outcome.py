"""How a benchmark ends: tables, and an exit status."""

from collections.abc import Sequence
from pathlib import Path

import typer

from threadis.bench import scale, table
from threadis.bench.idle import (
    IdleCost,
    allow_connections,
    measure_idle,
    render_idle,
)
from threadis.bench.measure import BASELINE, started
from threadis.bench.options import (
    writable,
)
from threadis.bench.progress import Interruption
from threadis.bench.report import Report
from threadis.bench.suite import Plan, measure
from threadis.bench.targets import Setup


def measured(suite: str, plans: Sequence[Plan], repeats: int, json: Path | None) -> Report:
    """Measure and print everything; wrong replies end in exit status 1."""
    report = measure(suite, plans, repeats, writable(json))
    table.render(report, table.console())
    fail_on_errors(report)
    return report


def fail_on_errors(report: Report | scale.ScaleReport) -> None:
    """Exit status 1 if a reply was wrong."""
    if report.errors:
        raise typer.Exit(1)


def measured_idle(setup: Setup, count: int) -> list[IdleCost]:
    """Measure and print."""
    allow_connections(count)
    with Interruption(), started([BASELINE, "threadis"], setup) as targets:
        costs = [cost for target in targets for cost in measure_idle(target, count)]
    render_idle(costs, table.console())
    return costs
