"""The command table for the coordinator: which keys a command names, and how it accesses them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final, NamedTuple

from threadis import _core
from threadis.catalog.commands import SCRIPTS, Row
from threadis.coordinator.base.databases import confine_databases

DELETES: Final = frozenset({"del", "unlink"})  # whatever the value is


class KeyAccess(NamedTuple):
    """A key of a command; a tuple, because a command may have a million of them."""

    key: bytes
    reads: bool  # its value matters
    writes: bool
    removes: bool = False  # the key may be gone then


_ACCESS = partial(tuple.__new__, KeyAccess)  # the quickest way to make one


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A command with its row and its keys; no keys if its syntax is wrong."""

    row: Row
    args: Sequence[bytes]
    keys: list[KeyAccess]


class CommandTable:
    """Looks up commands in the workers' table."""

    def __init__(
        self, core: _core.Proxy, placed: _core.Placement, rows: Iterable[Row], databases: int
    ) -> None:
        self._core = core
        self._placed, self._databases = placed, databases
        self._rows = {row.name: row for row in rows}
        self.reading = frozenset(
            name
            for name, row in self._rows.items()
            if row.touches_keys and not row.writes and name not in SCRIPTS | {"publish", "spublish"}
        )

    def parse(self, args: Sequence[bytes]) -> ParsedCommand:
        """Find a command's row and keys; KeyError if there is no such command."""
        found = self._core.find(args)
        if found is None:
            raise KeyError(args[0])
        name, names = found
        row = self._rows[name]
        keys: list[KeyAccess] = []
        notes_count = name == "pfcount" and sum(map(len, names)) == 1  # in the key itself
        for spec, named in zip(row.keys, names, strict=True):
            reads = spec.access in ("RO", "RW") or (spec.access == "RM" and name not in DELETES)
            writes = (row.writes or notes_count) and spec.access != "RO"
            what = (repeat(reads), repeat(writes), repeat(spec.deletes))
            keys += map(_ACCESS, zip(named, *what, strict=False))
        return ParsedCommand(row, confine_databases(args, self._databases), keys)

    def rows(self) -> Iterable[Row]:
        """Return all rows."""
        return self._rows.values()

    def look_up(self, args: Sequence[bytes]) -> Row | None:
        """Find a command's row."""
        found = self._core.find(args)
        return self._rows[found[0]] if found else None

    def owner(self, db: int, key: bytes) -> int:
        """Return the instance of a key in a database."""
        return self._placed.instance(db, key)

    def owners(self, parsed: ParsedCommand, db: int) -> set[int]:
        """Return the instances of a command's keys."""
        return set(self.owners_of(db, parsed.keys))

    def owners_of(self, db: int, keys: Sequence[KeyAccess]) -> list[int]:
        """Return the instance of each key of a command."""
        return self.owners_by_name(db, [access[0] for access in keys])

    def owners_by_name(self, db: int, keys: Sequence[bytes]) -> list[int]:
        """Return the instance of each of many keys."""
        return self._placed.instances(db, keys)
