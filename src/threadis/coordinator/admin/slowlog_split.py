"""Commands that instances have logged in parts, and that the logs show as one.

A worker reports such a command when its last part is answered (``rust/src/core/slow_log.rs``): its
client, its arguments, and what each instance has run. An instance logs its part before it answers.
So when all instances are asked after that, all parts are found. If a log was read earlier, it may
have shown some of the parts; the command then takes their places.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

KEPT: Final = 256  # entries that may yet turn out to be a part
APART: Final = 1  # seconds by which the clocks of servers may be late

Entry = list[Any]  # time, amount, arguments, address, name


@dataclass(slots=True)
class SplitCommand:
    """A command whose parts may still be found."""

    entry: Entry
    most: int  # microseconds of any part
    began: int  # seconds
    parts: dict[int, list[bytes]]  # what each instance has seen, and was not met yet
    is_slow: bool  # how long it took, its parts say
    is_told: bool

    def takes(self, index: int, entry: Entry) -> bool:
        """Whether an instance's entry is a part of it."""
        return (
            self.parts.get(index) == entry[2]
            and (entry[1] <= self.most or not self.is_slow)
            and self.began - APART <= entry[0] <= self.entry[0] + APART
        )

    def add(self, index: int, entry: Entry) -> None:
        """Add a part; the duration is that of the slowest part."""
        del self.parts[index]
        if self.is_slow:
            self.entry[1] = max(entry[1], self.entry[1])


class SplitCommands:
    """Commands whose parts may still be found, and entries that came before their command."""

    def __init__(self) -> None:
        self._open: list[SplitCommand] = []
        self._met: deque[tuple[int, Entry]] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, whole: SplitCommand) -> list[Entry]:
        """Add a command; return the entries that are parts of it and were shown already."""
        found = []
        for index, entry in list(self._met):
            if whole.takes(index, entry):
                whole.add(index, entry)
                self._met.remove((index, entry))
                found.append(entry)
        self._open.append(whole)
        return found

    def join(self, index: int, entry: Entry) -> list[Entry]:
        """Add an instance's entry; return what to show: nothing for a further part of a command."""
        for whole in self._open:
            if whole.takes(index, entry):
                whole.add(index, entry)
                is_news, whole.is_told = not whole.is_told, True
                return [whole.entry] if is_news else []
        self._met.append((index, entry))
        return [entry]

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """All instances are asked meanwhile: what was open before is complete then."""
        before = len(self._open)
        try:
            yield
        finally:
            del self._open[:before]

    def forget(self) -> None:
        """Forget everything."""
        self._open.clear()
        self._met.clear()
