"""What earlier runs of a script have shown: whether it keeps to what it declares, and what not."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from threadis.coordinator.locality import Group

TOUCHES = 100  # undeclared keys that are remembered of a script
NEWEST = 8  # of those that were missing only once, so many are lent to the next run


def covers(groups: Iterable[Group], key: bytes) -> bool:
    """Whether one of the groups has the key."""
    return any(key in group for group in groups)


@dataclass(slots=True)
class Known:
    """One script. ``groups`` are the keys that live where the keys of a call do."""

    declares: bool = False  # it touched nothing but what it declared, or what lives there anyway
    is_local: bool = False  # … and it did touch what lives there anyway
    strays: bool = False  # a run has touched more; others will
    # Undeclared keys, how often one was missing, and whether it lived where the call's keys did.
    _touches: dict[bytes, tuple[int, bool]] = field(default_factory=dict)

    def guesses(self, groups: Collection[Group]) -> list[bytes]:
        """Guess what a call will touch without declaring it."""
        once = [key for key, (times, _) in self._touches.items() if times == 1]
        unlikely = set(once[:-NEWEST])
        return [
            key
            for key, (_, was_local) in self._touches.items()
            if key not in unlikely and (not was_local or covers(groups, key))
        ]

    def touched(self, keys: Iterable[bytes], groups: Collection[Group]) -> None:
        """Take note of undeclared keys that a run needed and was not lent.

        What is always the same key is missing a second time at most; what is another key each time
        soon makes room.
        """
        for key in keys:
            is_local = covers(groups, key)
            self.is_local = self.is_local or is_local
            self.strays = self.strays or not is_local
            times, _ = self._touches.pop(key, (0, False))
            self._touches[key] = (times + 1, is_local)
            if len(self._touches) > TOUCHES:
                rarest = min(self._touches, key=lambda one: self._touches[one][0])
                del self._touches[rarest]

    def ran(self, reply: bytes) -> None:
        """Take note of a whole run; one that failed (NOSCRIPT, say) may not have come far."""
        self.declares = not self.strays and not reply.startswith(b"-")
