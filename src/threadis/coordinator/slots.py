"""Where a key lives: the coordinator's copy of the slot map, which never changes while we run."""

from bisect import bisect_right
from collections.abc import Iterable

from threadis import _core, control


class Slots:
    """Slot → instance."""

    def __init__(self, ranges: Iterable[control.SlotRange]) -> None:
        self._ranges = sorted(ranges, key=lambda one: one.first)
        self._firsts = [one.first for one in self._ranges]

    def owner(self, key: bytes) -> int:
        """Return the instance that has this key, if anybody has."""
        return self._ranges[bisect_right(self._firsts, _core.slot(key)) - 1].instance
