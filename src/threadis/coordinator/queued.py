"""What EXEC shall run: the steps of a transaction, and which of them one write can do.

A step is one of these::

    at home     on the instance of its keys: a part of the write
    anywhere    on keys of several instances: the whole is borrowed
    everywhere  DBSIZE, KEYS, FLUSHDB, FLUSHALL, SWAPDB: a part on each instance; the first two
                also where the whole is borrowed (``overall``)
    aside       PING, PUBLISH, SELECT: the client's worker runs it, behind the write
    at the end  INFO, SCAN: the same, if nothing is written behind it
    a script    EVAL, FCALL: at home if it can touch no others for certain (``scripts``), else
                the whole is borrowed
    alone       SORT BY: no write of ours can do it

So all that changes keys happens at once, or not at all. Where that would show, or a step
must be alone, the transaction is no one write.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from threadis import _core, resp
from threadis.commands import SCRIPTS, SWEEPS
from threadis.coordinator.call import Call
from threadis.coordinator.databases import are_within, selected
from threadis.coordinator.events import CHANNEL, SHARD, Publication
from threadis.coordinator.execution import lock_names
from threadis.coordinator.guarded import Guarded
from threadis.coordinator.links import Words
from threadis.coordinator.locality import LOCK
from threadis.coordinator.locks import Key
from threadis.coordinator.overall import LISTS
from threadis.coordinator.phases import Place
from threadis.coordinator.plans import other_databases
from threadis.coordinator.table import Parsed, Table

PLAIN_ROUTES: Final = frozenset({"keys", "split"})
# Run by the worker without a look at the keyspace.
ASIDE_ROUTES: Final = frozenset({"session", "any", "pubsub"})
PUBLISHES: Final = {"publish": CHANNEL, "spublish": SHARD}
# They change what the same client's next commands may do, or how they are answered.
CHANGES_SESSION: Final = frozenset({"auth", "hello", "reset", "client|reply", "client|no-touch"})
# With their special words they have keys that only the server knows.
HIDE_KEYS: Final = frozenset({"sort", "sort_ro"})
EVERYWHERE: Final = SWEEPS | LISTS
# Neither do they look at keys, nor do they change anything that others here look at.
LOOKS_ELSEWHERE: Final = frozenset({
    "acl|cat", "acl|getuser", "acl|list", "acl|users", "acl|whoami", "client|getname",
    "client|getredir", "client|id", "client|info", "client|list", "client|trackinginfo", "command",
    "command|count", "command|docs", "command|info", "command|list", "config|get", "lastsave",
    "latency|history", "latency|latest", "pubsub|channels", "pubsub|numpat", "pubsub|numsub",
    "role", "slowlog|get", "slowlog|len", "wait",
})  # fmt: skip


class How(Enum):
    """Where a step is done."""

    AT_HOME = auto()
    ANYWHERE = auto()
    EVERYWHERE = auto()
    SCRIPT = auto()  # until somebody has read it
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
    script: Guarded | Call | None = None  # what it is at home, or where the whole is borrowed

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

    @property
    def names_database(self) -> bool:
        """Whether it would leave the database of copies."""
        words = self.parsed.args[3:] if self.name == "copy" else ()
        return self.name == "move" or b"DB" in map(bytes.upper, words)


class Queued:
    """The steps of one transaction, and what follows from them."""

    def __init__(self, steps: list[Step], db: int) -> None:
        self.db = db
        self.steps = steps
        kinds = {step.how for step in self.steps}
        # The write does everything, in one database, with no instance but its keys'.
        self.is_plain = kinds <= {How.AT_HOME, How.ANYWHERE} and all(
            step.db == db and step.script is None for step in self.steps
        )
        # It must be alone with the whole keyspace.
        self.needs_everything = not kinds.isdisjoint(
            (How.EVERYWHERE, How.ALONE, How.AT_THE_END)
        ) or any(isinstance(step.script, Call) for step in self.steps)
        self.flushes = any(step.name in SWEEPS for step in self.steps)
        self.is_one_write = How.ALONE not in kinds and _is_one_write(self.steps)
        self.instances = set().union(*(step.owners for step in self.steps))
        self.locks = [name for step in self.steps for name in step.names]
        self.written_keys = [
            (where, key) for where, key, writes in self.locks if writes and not key.startswith(LOCK)
        ]

    def messages(self, denied: Collection[int], *, always: bool) -> list[Publication]:
        """What PUBLISH says among them, if that must be told in order with what scripts say."""
        scripts = [step.script for step in self.steps if step.script is not None]
        bodies = [one.call.body if isinstance(one, Guarded) else one.body for one in scripts]
        if not always and all(body and b"publish" not in body.lower() for body in bodies):
            return []
        return [
            Publication(at, PUBLISHES[step.name], *step.parsed.args[1:3])
            for at, step in enumerate(self.steps)
            if step.name in PUBLISHES and at not in denied
        ]


class Parts:
    """A write's part for each instance, and where in it the reply of each step will be."""

    def __init__(self, steps: Sequence[Step], order: Sequence[int], db: int) -> None:
        """All begin and end in database ``db``; ``order`` has their places in the transaction."""
        self.parts: dict[int, list[Words]] = defaultdict(list)
        self.order: dict[Place, int] = {}  # the step of each command of a part
        self.scripts: dict[Place, Guarded] = {}
        self._loaded: dict[int, set[bytes]] = defaultdict(set)
        self._places: list[list[Place]] = []
        self._names = [step.name for step in steps]
        where: dict[int, int] = {}
        for number, step in zip(order, steps, strict=True):
            places = []
            for index in sorted(step.owners):
                if where.get(index, db) != step.db:
                    self._add(index, [b"SELECT", b"%d" % step.db], number)
                    where[index] = step.db
                if isinstance(step.script, Guarded):
                    places.append(self._add_script(index, step.script, number))
                else:
                    places.append(self._add(index, step.parsed.args, number))
            self._places.append(places)
        for index, now in where.items():
            if now != db:
                self._add(index, [b"SELECT", b"%d" % db], 0)

    def _add_script(self, index: int, script: Guarded, number: int) -> Place:
        """Add a script, known once more: somebody may flush all of them meanwhile."""
        call = script.call
        is_named = call.words[0].lower().startswith(b"evalsha")
        if is_named and call.name not in self._loaded[index]:
            self._loaded[index].add(call.name)
            self._add(index, [b"SCRIPT", b"LOAD", call.body], number)
        place = self._add(index, call.words, number)
        self.scripts[place] = script
        return place

    def _add(self, index: int, words: Words, number: int) -> Place:
        place = (index, len(self.parts[index]))
        self.parts[index].append(words)
        self.order[place] = number
        return place

    def replies(self, found: dict[int, list[bytes]]) -> list[bytes]:
        """Find each step's reply in those of the instances."""
        of_each = [[found[index][at] for index, at in places] for places in self._places]
        return [_merged(name, each) for name, each in zip(self._names, of_each, strict=True)]


def read(
    commands: Sequence[Words],
    db: int,
    table: Table,
    databases: int,
    everyone: Collection[int],
    *,
    has_pins: bool,
) -> Iterator[Step]:
    """Say of each command how it is done."""
    for args in commands:
        parsed = table.parse(args)
        names, owners = lock_names(parsed.keys, db), table.owners(parsed, db)
        far = other_databases(parsed, db)
        owners.update(table.owner(where, key) for where, key, _ in far)
        how = _how(parsed, owners, reaches_far=bool(far))
        if parsed.row.name == "swapdb" and (has_pins or not are_within(args[1:], databases)):
            how = How.ALONE
        yield Step(parsed, db, [*names, *far], everyone if how is How.EVERYWHERE else owners, how)
        if parsed.row.name == "select":
            db = selected(args[1], db, databases)


def _is_one_write(steps: Sequence[Step]) -> bool:
    """Whether one write can do all that is on keys, and nobody can tell."""
    written = [step for step in steps if step.is_written]
    kinds = {step.how for step in written}
    if How.ANYWHERE in kinds and (
        any(step.how is How.EVERYWHERE and step.name not in LISTS for step in written)
        or len({step.db for step in written}) > 1
        or any(step.names_database for step in written)
    ):
        return False
    last = max((at for at, step in enumerate(steps) if step.is_written), default=-1)
    return last >= 0 and all(step.how is not How.AT_THE_END for step in steps[:last])


def _how(parsed: Parsed, owners: Collection[int], *, reaches_far: bool) -> How:
    row = parsed.row
    if row.name in SCRIPTS:
        return How.SCRIPT
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
    is_aside = row.route in ASIDE_ROUTES and row.name not in CHANGES_SESSION
    if is_aside or row.name in LOOKS_ELSEWHERE:
        return How.ASIDE
    return How.AT_THE_END


def _merged(name: str, replies: list[bytes]) -> bytes:
    """One reply of those of all instances."""
    error = next((reply for reply in replies if reply.startswith(b"-")), None)
    if error is not None or len(replies) == 1 or name in SWEEPS:
        return error or replies[0]
    if name == "dbsize":
        return resp.integer(sum(int(reply[1:-2]) for reply in replies))
    return resp.array([one for reply in replies for one in _core.elements(reply)])
