"""One run of scripts on copies: how it is watched, and what was seen."""

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from threadis import ours
from threadis.coordinator.alarms import Place
from threadis.coordinator.links import Words, value
from threadis.coordinator.reading import KEYLESS
from threadis.coordinator.sorting import key_of, patterns
from threadis.coordinator.table import Table

SELECT: Final = b"select"


@dataclass(slots=True)
class Trial:
    """How a run is watched."""

    keys: list[bytes]
    denied: Collection[bytes]
    looks: bool = False
    # Scripts that may go to other databases, the real ones: so they may write nothing; and those
    # that have just wanted to.
    wanders: set[int] = field(default_factory=set)
    selects: set[int] = field(default_factory=set)
    # What scripts among other commands sort, by which patterns: it is asked for its elements.
    sorts: dict[bytes, set[bytes]] = field(default_factory=dict)

    def note_sorts(self, ran: Iterable[Words]) -> bool:
        """Add what was sorted by other keys; whether there is more than was known."""
        known = sum(map(len, self.sorts.values()))
        for words in ran:
            if wanted := patterns(words):
                self.sorts.setdefault(words[1], set()).update(wanted)
        return sum(map(len, self.sorts.values())) > known

    def named(self, questions: Sequence[bytes], replies: Sequence[bytes]) -> set[bytes]:
        """The keys that patterns name for the elements of what is sorted."""
        return {
            key_of(pattern, element)
            for source, reply in zip(questions, replies, strict=True)
            if reply.startswith((b"*", b"~"))
            for element in value(reply)
            for pattern in self.sorts[source]
        }

    order: list[bytes] = field(default_factory=list)  # of keys that it has written, if one looks

    def note_order(self, table: Table, ran: Iterable[Words]) -> None:
        """Take note of the keys that commands have made or added to, in this order."""
        found: dict[bytes, None] = {}
        for words in ran:
            with contextlib.suppress(KeyError):
                keys = table.parse(words).keys
                found.update((one.key, None) for one in keys if one.writes and not one.removes)
        self.order = list(found)

    def changed(self, db: int, keys: Collection[bytes]) -> list[Place]:
        """Put what has changed into the order that was seen; other keys come last."""
        seen = [key for key in self.order if key in keys]
        return [(db, key) for key in dict.fromkeys([*seen, *keys])]


def strays(ran: Iterable[tuple[int, Words]], databases: int) -> bool:
    """Whether a script has touched anything where no copies are, or has found what is ours."""
    hidden = range(databases, databases + ours.HIDDEN_DATABASES)
    for db, (name, *args) in ran:
        if name.lower() == SELECT:
            number = args[0] if args else b""
            if number.isdigit() and int(number) in hidden:
                return True
        elif db != ours.copies(databases) and name.lower().decode(errors="replace") not in KEYLESS:
            return True
    return False
