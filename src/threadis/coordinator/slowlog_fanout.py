"""Entries of the slow log about commands that every instance runs: clients see one."""

from collections import deque
from collections.abc import Set
from typing import Any, Final

KEPT: Final = 256  # entries that others may still join
APART: Final = 1  # seconds between two instances' entries about one command

Entry = list[Any]  # time, amount, arguments, address, name


class FanOut:
    """The latest such entries, and which instances have spoken of each."""

    def __init__(self, names: Set[str]) -> None:
        self._names = names  # of such commands
        self._latest: deque[tuple[Entry, set[int]]] = deque(maxlen=KEPT)

    def join(self, index: int, entry: Entry) -> bool:
        """Whether an instance's entry is about a command that the log has already: of all
        instances the slowest counts.
        """
        if not self._is_such(entry[2]):
            return False
        for known, instances in self._latest:
            is_near = abs(known[0] - entry[0]) <= APART
            if index not in instances and is_near and known[2] == entry[2]:
                known[1] = max(known[1], entry[1])
                instances.add(index)
                return True
        self._latest.append((entry, {index}))
        return False

    def _is_such(self, words: list[bytes]) -> bool:
        name, *others = [word.decode(errors="replace").lower() for word in words[:2]]
        return name in self._names or (bool(others) and f"{name}|{others[0]}" in self._names)
