"""What EXEC shall run: the steps of a transaction, and which of them one write can do.

A step is one of these::

    at home     on the instance of its keys: a part of the write
    anywhere    on keys of several instances: the whole is borrowed
    everywhere  DBSIZE, KEYS, FLUSHDB, FLUSHALL: a part on each instance
    aside       PING, PUBLISH, SELECT: the client's worker runs it, behind the write
    at the end  INFO, SCAN: the same, if nothing is written behind it
    alone       EVAL, SORT BY: no write of ours can do it

So all that changes keys happens at once, or not at all. Where that would show, or a step
must be alone, the transaction is no one write.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from threadis import _core, resp
from threadis.commands import FLUSHES, SCRIPTS
from threadis.coordinator.execution import lock_names
from threadis.coordinator.links import Words
from threadis.coordinator.locks import Key
from threadis.coordinator.plans import other_databases
from threadis.coordinator.table import Parsed, Table

PLAIN_ROUTES: Final = frozenset({"keys", "split"})
# Run by the worker without a look at the keyspace.
ASIDE_ROUTES: Final = frozenset({"session", "any", "pubsub"})
# They change what the same client's next commands may do, or how they are answered.
CHANGES_SESSION: Final = frozenset({"auth", "hello", "reset", "client|reply", "client|no-touch"})
# With their special words they have keys that only the server knows.
HIDE_KEYS: Final = frozenset({"sort", "sort_ro"})
EVERYWHERE: Final = FLUSHES | {"dbsize", "keys"}


class How(Enum):
    """Where a step is done."""

    AT_HOME = auto()
    ANYWHERE = auto()
    EVERYWHERE = auto()
    ASIDE = auto()
    AT_THE_END = auto()  # aside, but not before something is written
    ALONE = auto()  # no write of ours can do it


@dataclass(frozen=True, slots=True)
class Step:
    """A command, the database it finds itself in, its names to lock, the instances of its keys."""

    parsed: Parsed
    db: int
    names: Sequence[Key]
    owners: Collection[int]
    how: How

    @property
    def name(self) -> str:
        """Its row's name."""
        return self.parsed.row.name

    @property
    def read_keys(self) -> list[bytes]:
        """What it reads without changing anything; of scripts others know."""
        row = self.parsed.row
        is_read = row.touches_keys and not row.writes and row.name not in SCRIPTS
        return [access.key for access in self.parsed.keys] if is_read else []

    @property
    def is_written(self) -> bool:
        """Whether the write does it."""
        return self.how in (How.AT_HOME, How.ANYWHERE, How.EVERYWHERE)


class Queued:
    """The steps of one transaction, and what follows from them."""

    def __init__(
        self, commands: Sequence[Words], db: int, table: Table, databases: int, instances: int
    ) -> None:
        self.db = db
        self.steps = list(_steps(commands, db, table, databases, range(instances)))
        kinds = {step.how for step in self.steps}
        # The write does everything, in one database, with no instance but its keys'.
        self.is_plain = kinds <= {How.AT_HOME, How.ANYWHERE} and all(
            step.db == db for step in self.steps
        )
        # It must be alone with the whole keyspace.
        self.needs_everything = not kinds.isdisjoint((How.EVERYWHERE, How.ALONE, How.AT_THE_END))
        self.flushes = any(step.name in FLUSHES for step in self.steps)
        self.is_one_write = How.ALONE not in kinds and _is_one_write(self.steps)
        self.instances = set().union(*(step.owners for step in self.steps))
        self.locks = [name for step in self.steps for name in step.names]
        self.written_keys = [(where, key) for where, key, writes in self.locks if writes]


class Parts:
    """A write's part for each instance, and where in it the reply of each step will be."""

    def __init__(self, steps: Sequence[Step], db: int) -> None:
        """All begin and end in database ``db``."""
        self.parts: dict[int, list[Words]] = defaultdict(list)
        self.order: dict[tuple[int, int], int] = {}  # the step of each command of a part
        self._places: list[list[tuple[int, int]]] = []
        self._names = [step.name for step in steps]
        where: dict[int, int] = {}
        for number, step in enumerate(steps):
            places = []
            for index in sorted(step.owners):
                if where.get(index, db) != step.db:
                    self._add(index, [b"SELECT", b"%d" % step.db], number)
                    where[index] = step.db
                places.append(self._add(index, step.parsed.args, number))
            self._places.append(places)
        for index, selected in where.items():
            if selected != db:
                self._add(index, [b"SELECT", b"%d" % db], len(steps))

    def _add(self, index: int, words: Words, number: int) -> tuple[int, int]:
        place = (index, len(self.parts[index]))
        self.parts[index].append(words)
        self.order[place] = number
        return place

    def replies(self, found: dict[int, list[bytes]]) -> list[bytes]:
        """Find each step's reply in those of the instances."""
        of_each = [[found[index][at] for index, at in places] for places in self._places]
        return [_merged(name, each) for name, each in zip(self._names, of_each, strict=True)]


def _steps(
    commands: Sequence[Words], db: int, table: Table, databases: int, everyone: Collection[int]
) -> Iterator[Step]:
    for args in commands:
        parsed = table.parse(args)
        names, owners = lock_names(parsed.keys, db), table.owners(parsed, db)
        far = other_databases(parsed, db)
        owners.update(table.owner(where, key) for where, key, _ in far)
        how = _how(parsed, owners, reaches_far=bool(far))
        yield Step(parsed, db, [*names, *far], everyone if how is How.EVERYWHERE else owners, how)
        if parsed.row.name == "select":
            db = _selected(args[1], db, databases)


def _is_one_write(steps: Sequence[Step]) -> bool:
    """Whether one write can do all that is on keys, and nobody can tell."""
    written = [step for step in steps if step.is_written]
    kinds = {step.how for step in written}
    if How.ANYWHERE in kinds and (
        How.EVERYWHERE in kinds or len({step.db for step in written}) > 1
    ):
        return False
    last = max((at for at, step in enumerate(steps) if step.is_written), default=-1)
    return last >= 0 and all(step.how is not How.AT_THE_END for step in steps[:last])


def _how(parsed: Parsed, owners: Collection[int], *, reaches_far: bool) -> How:
    row = parsed.row
    special = {word.encode() for word in row.special_words}
    if row.name in HIDE_KEYS and not special.isdisjoint(map(bytes.upper, parsed.args)):
        return How.ALONE
    is_ordinary = row.route in PLAIN_ROUTES or row.blocks or row.name == "move"
    if is_ordinary and parsed.keys and (len(owners) <= 1 or not reaches_far):
        return How.AT_HOME if len(owners) <= 1 else How.ANYWHERE
    if row.name in EVERYWHERE:
        return How.EVERYWHERE
    if row.writes or parsed.keys:
        return How.ALONE
    if row.route in ASIDE_ROUTES and row.name not in CHANGES_SESSION:
        return How.ASIDE
    return How.AT_THE_END


def _selected(word: bytes, db: int, databases: int) -> int:
    """The database after SELECT; that before it, if there is no such."""
    return int(word) if word.isdigit() and len(word) < 10 and int(word) < databases else db


def _merged(name: str, replies: list[bytes]) -> bytes:
    """One reply of those of all instances."""
    error = next((reply for reply in replies if reply.startswith(b"-")), None)
    if error is not None or len(replies) == 1 or name in FLUSHES:
        return error or replies[0]
    if name == "dbsize":
        return resp.integer(sum(int(reply[1:-2]) for reply in replies))
    return resp.array([one for reply in replies for one in _core.elements(reply)])
