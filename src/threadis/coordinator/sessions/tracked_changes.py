"""Changes of tracked keys that belong together."""

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
    """Changes that are reported together, when all are done."""

    gone: list[bytes] = field(default_factory=list)  # without a DEL: it has expired
    # What its client has read after its own writes: with NOLOOP it is not told of its writes, but
    # must be of the next change.
    read: set[bytes] = field(default_factory=set)


def read_last(steps: Iterable[Step]) -> set[bytes]:
    """Return the keys that are read and not written later; for scripts this is known later."""
    read: set[bytes] = set()
    for step in steps:
        read.update(step.read_keys)
        read.difference_update(access.key for access in step.parsed.keys if access.writes)
    return read
