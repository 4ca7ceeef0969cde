"""A plot as SVG: bars with intervals. Small, and the same bytes each time."""

from collections.abc import Sequence
from html import escape
from math import isnan
from typing import NamedTuple

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"]
STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.axis{stroke:#888}.grid{stroke:#8884}"
    ".mark{stroke:#24292f;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.mark{stroke:#e6edf3}}"
)
WIDTH = 760
LABELS = 250  # px for what stands left of the bars
ROW = 18  # px of a bar and the gap below it
TICKS = 6  # at most so many steps of an axis


class Bar(NamedTuple):
    """One bar; a bar without a label belongs to the group above it."""

    label: str
    value: float
    low: float
    high: float
    colour: int = 0
    mark: float | None = None  # the goal


def bars(title: str, rows: Sequence[Bar], most: float, legend: Sequence[str] = ()) -> str:
    """Horizontal bars from 0; what is longer than ``most`` is cut and says its value.

    A value that is not a number was not measured.
    """
    top = 40 + (ROW if legend else 0)
    height = top + len(rows) * ROW + 30
    scale = (WIDTH - LABELS - 90) / most
    out = [_text(8, 20, title, weight="bold"), *_legend(legend, 40)]
    for tick in _ticks(most):
        x = LABELS + tick * scale
        out.append(_line(x, top - 4, x, height - 26, "grid"))
        out.append(_text(x, height - 10, f"{tick:g}", anchor="middle"))
    for index, row in enumerate(rows):
        y = top + index * ROW
        out.append(_text(LABELS - 8, y + 12, row.label, anchor="end"))
        if isnan(row.value):
            out.append(_text(LABELS + 6, y + 12, "not measured"))
            continue
        end = LABELS + min(row.value, most) * scale
        out.append(
            f'<rect x="{LABELS}" y="{y + 2}" width="{end - LABELS:.1f}" height="{ROW - 5}" '
            f'fill="{COLOURS[row.colour % len(COLOURS)]}"/>'
        )
        low, high = (LABELS + min(one, most) * scale for one in (row.low, row.high))
        if row.value <= most:
            out.append(_line(low, y + ROW / 2, high, y + ROW / 2, "axis"))
        if row.mark is not None:
            mark = LABELS + row.mark * scale
            out.append(_line(mark, y, mark, y + ROW - 1, "mark"))
        says = f"{row.value:.3g}" + (" →" if row.value > most else "")
        out.append(_text(max(end, min(high, LABELS + most * scale)) + 6, y + 12, says))
    return _svg(height, out)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 up to ``most``."""
    step = next(
        size * 10.0**power
        for power in range(-3, 9)
        for size in (1, 2, 5)
        if most / (size * 10.0**power) <= TICKS
    )
    return [step * index for index in range(int(most / step + 1e-9) + 1)]


def _legend(names: Sequence[str], y: int) -> list[str]:
    out = []
    for index, name in enumerate(names):
        x = 8 + index * (WIDTH - 16) / len(names)
        colour = COLOURS[index % len(COLOURS)]
        out.append(f'<rect x="{x:.1f}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        out.append(_text(x + 15, y, name))
    return out


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "") -> str:
    extra = f' font-weight="{weight}"' if weight else ""
    extra += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, kind: str, more: str = "") -> str:
    kind = f'class="{kind}" ' if kind else ""
    return f'<line {kind}x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" {more}/>'


def _svg(height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"
