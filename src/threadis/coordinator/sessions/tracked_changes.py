"""What becomes of the keys of one change, for those who track them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from threadis.coordinator.base.command_table import ParsedCommand


class Step(Protocol):
    """A command of a transaction."""

    @property
    def parsed(self) -> ParsedCommand:
        """The command."""

    @property
    def read_keys(self) -> list[bytes]:
        """What it reads without changing anything."""


@dataclass(slots=True)
class TrackedChange:
    """A change that is told of as one, once it is done."""

    gone: list[bytes] = field(default_factory=list)  # though nobody deleted it: it has expired
    # What its client has read behind its own writes: if he is not told of these, he still must be
    # of the next.
    read: set[bytes] = field(default_factory=set)


def read_last(steps: Iterable[Step]) -> set[bytes]:
    """Find what commands read and none behind them writes; of scripts that is known later."""
    read: set[bytes] = set()
    for step in steps:
        read.update(step.read_keys)
        read.difference_update(access.key for access in step.parsed.keys if access.writes)
    return read
