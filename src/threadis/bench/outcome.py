"""The end of a benchmark: tables, and an exit status."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from threadis.bench import scale, table
from threadis.bench.idle import (
    IdleCost,
    allow_connections,
    measure_idle,
    render_idle,
)
from threadis.bench.measure import BASELINE, started
from threadis.bench.options import INTERRUPTED, writable
from threadis.bench.progress import Interruption, Unfinished
from threadis.bench.report import Report
from threadis.bench.suite import Plan, measure
from threadis.bench.targets import Setup

R = TypeVar("R", Report, scale.ScaleReport)


def measured(suite: str, plans: Sequence[Plan], repeats: int, json: Path | None) -> Report:
    """Measure and print everything; exit status 1 if replies were wrong."""
    path = writable(json)
    return measure_and_show(
        lambda: measure(suite, plans, repeats, path),
        lambda report: table.render(report, table.console()),
    )


def measure_and_show(measuring: Callable[[], R], show: Callable[[R], None]) -> R:
    """Measure and show; if interrupted, show what there is, and exit with its own status."""
    try:
        report = measuring()
    except Unfinished as end:
        found: R = end.report  # type: ignore[assignment]
        words = "this is what was measured" if found.samples else "nothing was measured yet"
        typer.echo(f"threadis bench: interrupted; {words}", err=True)
        if found.samples:
            show(found)
        raise typer.Exit(INTERRUPTED) from None
    show(report)
    fail_on_errors(report)
    return report


def fail_on_errors(report: Report | scale.ScaleReport) -> None:
    """Exit with status 1 if a reply was wrong."""
    if report.errors:
        raise typer.Exit(1)


def measured_idle(setup: Setup, count: int) -> list[IdleCost]:
    """Measure and print."""
    allow_connections(count)
    with Interruption(), started([BASELINE, "threadis"], setup) as targets:
        costs = [cost for target in targets for cost in measure_idle(target, count)]
    render_idle(costs, table.console())
    return costs
