"""Which keys certainly live together: what a script may touch besides the keys it declares.

A placement rule, a hash tag or a pinned database keeps keys on one instance, whatever else is in
their names. So a script with one such key may run there and touch the others without declaring
them; servers recognise them by a pattern.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from threadis import _core, own_names
from threadis.config.placement import Rule
from threadis.coordinator.keys.locks import Key

AWKWARD = re.compile(rb"[\0\t-\r ]")


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that begin with ``prefix``, followed by the parts of ``tail`` with any text between."""

    prefix: bytes
    tail: tuple[bytes, ...] = (b"", b"")

    def pattern(self) -> bytes:
        """Build the ACL key pattern of all its keys."""
        return pattern(self.prefix) + b"*".join(pattern(one) for one in self.tail)

    def is_open(self) -> bool:
        """Whether a key of the group stays one if any text is appended."""
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
        """Return the instance of a pinned database."""
        return self._pinned.get(db)

    def group(self, db: int, key: bytes) -> Group | None:
        """Return the group of keys that are certainly on this key's instance."""
        if db in self._pinned:
            return ALL_KEYS
        _, end, rule = self._placement.part(key)
        if rule is not None:
            found = Group(key[:end], tuple(self._rules[rule].tail()))
            others = self._rules[:rule]  # which take precedence
        else:
            tagged = tag_end(key)
            if not tagged:
                return None
            found, others = Group(key[:tagged]), self._rules
        if any(_may_overlap(found.prefix, other.literals[0]) for other in others):
            return None
        return found

    def locks(self, names: Sequence[Key]) -> list[Key]:
        """Return the additional locks of commands on several instances. They keep scripts away that
        may touch these keys without having declared them.
        """
        if not self._decides and b"{" not in b"".join([key for _, key, _ in names]):
            return []  # quick also for very many
        found = dict.fromkeys(
            (db, self.group(db, key)) for db, key, _ in names if b"{" in key or self._decides
        )
        return [(db, own_names.GROUP_LOCK + group.prefix, False) for db, group in found if group]


def _may_overlap(one: bytes, other: bytes) -> bool:
    """Whether a name can begin with both."""
    return one.startswith(other) or other.startswith(one)


def tag_end(key: bytes) -> int:
    """Return where a key's hash tag ends, brace included; 0 if it has none."""
    opened = key.find(b"{")
    closed = key.find(b"}", opened + 1) if opened >= 0 else -1
    return closed + 1 if closed > opened + 1 else 0


def is_plain(key: bytes) -> bool:
    """Whether the pattern of this key matches no other key."""
    return AWKWARD.search(key) is None


def pattern(key: bytes) -> bytes:
    """Build an ACL key pattern that matches a key.

    Patterns cannot contain white space or NUL. Character classes stand for them, and match other
    such bytes, too (they compare as signed characters). So the pattern is exact only for plain
    keys.
    """
    escaped = re.sub(rb"[\\*?\[\]^-]", rb"\\\g<0>", key)
    escaped = re.sub(rb"[ \0]", b"[^\x80-\xff\x01-\x1f!-\x7f]", escaped)
    return re.sub(rb"[\t-\r]", b"[\x08-\x0e]", escaped)
