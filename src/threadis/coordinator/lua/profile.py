"""A script's profile: what it can touch, and which undeclared keys earlier runs have touched."""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from threadis.coordinator.keys.colocation import Group
from threadis.coordinator.lua.analysis import Reach

TOUCHES = 100  # undeclared keys that are remembered of a script
UNDONE_MOST = 8  # undone runs, if also more than a quarter of all: no more are tried
NEWEST = 8  # of those that were missing only once, so many are lent to the next run


def covers(groups: Iterable[Group], key: bytes) -> bool:
    """Whether one of the groups has the key."""
    return any(key in group for group in groups)


@dataclass(slots=True)
class UndoableRuns:
    """Runs in place that can be undone."""

    count: int = 0
    undone: int = 0  # of these, which had to be
    compiles: bool | None = (
        None  # the script still compiles with the undo code in front; None: unknown
    )

    def is_too_often_undone(self) -> bool:
        """Whether such runs are not worth trying any more."""
        return self.undone >= UNDONE_MOST and self.undone * 4 > self.count


@dataclass(slots=True)
class ScriptProfile:
    """What is known of one script. A ``groups`` argument has the keys that live where a call's keys
    do.
    """

    reach: Reach | None = None  # None: it has not been read yet
    can_be_undone: bool | None = None  # None: it has not been read yet
    on_one_instance: UndoableRuns = field(
        default_factory=UndoableRuns
    )  # with all its keys on one instance
    on_several: UndoableRuns = field(
        default_factory=UndoableRuns
    )  # with keys on several, of which it needs some
    strays: bool = False  # a run that only read has touched more than it declared
    # Undeclared keys, how often one was missing, and whether it lived where the call's keys did.
    _touches: dict[bytes, tuple[int, bool]] = field(default_factory=dict)

    def guesses(self, groups: Collection[Group]) -> list[bytes]:
        """Guess which keys a call will touch without declaring them."""
        once = [key for key, (times, _) in self._touches.items() if times == 1]
        unlikely = set(once[:-NEWEST])
        return [
            key
            for key, (_, was_local) in self._touches.items()
            if key not in unlikely and (not was_local or covers(groups, key))
        ]

    def touched(self, keys: Iterable[bytes], groups: Collection[Group]) -> None:
        """Note undeclared keys that a run needed and was not lent.

        A key that is always the same is missing twice at most; a key that is another one each time
        is soon forgotten.
        """
        for key in itertools.islice(keys, TOUCHES):
            is_local = covers(groups, key)
            times, _ = self._touches.pop(key, (0, False))
            self._touches[key] = (times + 1, is_local)
            if len(self._touches) > TOUCHES:
                rarest = min(self._touches, key=lambda one: self._touches[one][0])
                del self._touches[rarest]
