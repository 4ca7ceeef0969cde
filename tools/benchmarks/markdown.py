"""What all pages have in common: paths, and pieces of Markdown."""

from collections.abc import Sequence
from pathlib import Path

from threadis.bench.machine import Machine
from threadis.bench.report import Row
from threadis.bench.spread import Spread

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "benchmarks"
RESULTS = DIRECTORY / "results"

Files = dict[str, str]  # name within benchmarks/, text
MADE = "Made by `make docs` from the results of `threadis bench {suite}`: {results}. [How it is measured](README.md).\n"


def head(title: str, suite: str, results: Sequence[str]) -> list[str]:
    """Title, and what the page is made of."""
    links = ", ".join(f"[{name}](results/{name})" for name in results)
    return [f"# {title}", "", MADE.format(suite=suite, results=links).strip()]


def machine(machine: Machine) -> list[str]:
    """Where it was measured."""
    return [
        f"{machine.cpu}, {len(machine.cpus)} CPUs, {machine.kernel}; Python {machine.python}, "
        f"threadis {machine.threadis}; {machine.date[:10]}, load average {machine.load_average:.1f} "
        "before.",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """As Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def spread(spread: Spread | None, digits: int = 2) -> str:
    """Median and interval."""
    if spread is None:
        return ""
    low, high = f"{spread.low:.{digits}f}", f"{spread.high:.{digits}f}"
    return f"**{spread.median:.{digits}f}** [{low}, {high}]"


def thousands(row: Row) -> str:
    """Commands a second."""
    count = row.throughput / 1000
    return f"{count:.0f}" if count >= 100 else f"{count:.3g}"


def numbers(values: Sequence[int]) -> str:
    """With commas between."""
    return ", ".join(map(str, values)) or "any"


def text(lines: Sequence[str]) -> str:
    """With an end of line."""
    return "\n".join(lines).rstrip() + "\n"
