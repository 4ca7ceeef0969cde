"""The progress bar on standard error, and the interruption of a benchmark."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show a bar; each call begins the next step, and is where an interruption takes effect."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with (
        Interruption() as interruption,
        Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar,
    ):
        task = bar.add_task("starting servers", total=steps)
        done = -1

        def step(description: str) -> None:
            nonlocal done
            interruption.check()
            done += 1
            bar.update(task, completed=done, description=description)

        yield step


class Unfinished(KeyboardInterrupt):  # what it brings is no error
    """Ctrl-C or SIGTERM, with the report of what was measured until then."""

    def __init__(self, report: object) -> None:
        super().__init__()
        self.report = report


@contextlib.contextmanager
def reporting(report: object) -> Iterator[None]:
    """Attach the report to an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        raise Unfinished(report) from None


class Interruption:
    """Ctrl-C and SIGTERM end a benchmark, with its servers.

    Python drops a KeyboardInterrupt in a destructor or in a callback of the garbage collector. So
    the signal is also remembered, and checked before each step.
    """

    def __init__(self) -> None:
        self._caught = False

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._catch) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what Python has dropped."""
        if self._caught:
            raise KeyboardInterrupt

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._caught = True
        raise KeyboardInterrupt
