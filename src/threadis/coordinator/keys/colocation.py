"""Which keys live together for certain: what a script may touch besides the keys it declares.

A placement rule, a hash tag or a pinned database keeps keys on one instance, whatever else is in
their names. So a script with one such key may run there and touch the others undeclared; servers
tell them apart by a pattern of names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from threadis import _core
from threadis.config.placement import Rule
from threadis.coordinator.keys.locks import Key

AWKWARD = re.compile(rb"[\0\t-\r ]")
LOCK = b"\0threadis:group:"  # begins the name of a group's lock; nobody's key


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that begin with ``prefix`` and go on with ``tail``, any text between each two."""

    prefix: bytes
    tail: tuple[bytes, ...] = (b"", b"")

    def pattern(self) -> bytes:
        """Build the ACL key pattern of all its keys."""
        return pattern(self.prefix) + b"*".join(pattern(one) for one in self.tail)

    def is_open(self) -> bool:
        """Whether each of its keys stays one, whatever is put behind it."""
        return len(self.tail) > 1 and not self.tail[-1]

    def __contains__(self, key: bytes) -> bool:
        if not key.startswith(self.prefix):
            return False
        if self.tail == (b"", b""):
            return True
        rest = b".*".join(re.escape(one) for one in self.tail)
        return re.fullmatch(re.escape(self.prefix) + rest, key, re.DOTALL) is not None


ALL_KEYS = Group(b"")


class Colocation:
    """Finds the group of a key."""

    def __init__(
        self,
        placement: _core.Placement,
        rules: Sequence[Rule],
        pins: Sequence[tuple[int, int]],
    ) -> None:
        self._placement = placement
        self._rules = rules
        self._pinned = dict(pins)
        self.has_pins = bool(pins)
        self._decides = bool(rules or pins)  # about keys without a hash tag, too

    def pinned_instance(self, db: int) -> int | None:
        """Tell the instance of a pinned database."""
        return self._pinned.get(db)

    def group(self, db: int, key: bytes) -> Group | None:
        """Find the keys that are on this key's instance for certain."""
        if db in self._pinned:
            return ALL_KEYS
        _, end, rule = self._placement.part(key)
        if rule is not None:
            found = Group(key[:end], tuple(self._rules[rule].tail()))
            others = self._rules[:rule]  # which come first
        else:
            tagged = tag_end(key)
            if not tagged:
                return None
            found, others = Group(key[:tagged]), self._rules
        if any(_may_overlap(found.prefix, other.literals[0]) for other in others):
            return None
        return found

    def locks(self, names: Sequence[Key]) -> list[Key]:
        """What holders of keys of several instances lock too, so that no script of those keys'
        groups runs meanwhile: it may touch them without having declared them.
        """
        if not self._decides and b"{" not in b"".join([key for _, key, _ in names]):
            return []  # quick also for very many
        found = dict.fromkeys(
            (db, self.group(db, key)) for db, key, _ in names if b"{" in key or self._decides
        )
        return [(db, LOCK + group.prefix, False) for db, group in found if group]


def _may_overlap(one: bytes, other: bytes) -> bool:
    """Whether a name can begin with both."""
    return one.startswith(other) or other.startswith(one)


def tag_end(key: bytes) -> int:
    """Where a key's hash tag ends, brace included; 0 if it has none."""
    opened = key.find(b"{")
    closed = key.find(b"}", opened + 1) if opened >= 0 else -1
    return closed + 1 if closed > opened + 1 else 0


def is_plain(key: bytes) -> bool:
    """Whether a pattern of this key matches no other."""
    return AWKWARD.search(key) is None


def pattern(key: bytes) -> bytes:
    """Build an ACL key pattern of a key.

    Patterns may hold neither white space nor NULs: classes stand for them, which match others of
    these bytes, too (they compare as signed characters). So only for plain keys it is exact.
    """
    escaped = re.sub(rb"[\\*?\[\]^-]", rb"\\\g<0>", key)
    escaped = re.sub(rb"[ \0]", b"[^\x80-\xff\x01-\x1f!-\x7f]", escaped)
    return re.sub(rb"[\t-\r]", b"[\x08-\x0e]", escaped)
