"""The steps of a transaction, and which of them one atomic write can do.

A step has one of these routes::

    ONE_INSTANCE         on the instance of its keys: a part of the write
    BORROWED             on keys of several instances, or that only SORT knows: all is borrowed
    ALL_INSTANCES        DBSIZE, KEYS, RANDOMKEY, FLUSHDB, SWAPDB …: a part on each instance; if all
                         is borrowed, see ``copy_run`` and ``keyspace_view``
    BY_WORKER            PING, PUBLISH, SELECT, INFO: the client's worker runs it after the write
    BY_WORKER_IN_ORDER   CONFIG SET, FUNCTION LOAD: the same, or before the write, not in it. The
                         worker then also runs the reads on that side. A setting that servers check
                         when a command is queued, not in EXEC, is BY_WORKER if no script follows
    SCRIPT               EVAL, FCALL: ONE_INSTANCE if it can certainly touch no other, else BORROWED

So all changes of keys happen at once, or not at all. If that is not possible, the worker may run
one step after the other, if not more than one of them writes.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from threadis import _core, own_names, resp
from threadis.catalog.blocking import CREATE_KEYS
from threadis.catalog.commands import SCRIPTS, SWEEPS
from threadis.catalog.in_transactions import (
    CHANGES_AUDIENCE,
    CHANGES_CLIENT,
    CHANGES_SESSION,
    CHANGES_TRACKING,
    INDEPENDENT,
    REFUSING,
)
from threadis.coordinator.base.command_table import CommandTable, ParsedCommand
from threadis.coordinator.base.databases import are_client_databases, database_after_select
from threadis.coordinator.instances.links import Words
from threadis.coordinator.keys.keyspace_events import CHANNEL, SHARD, Publication
from threadis.coordinator.keys.locks import Key
from threadis.coordinator.keys.write_parts import PartPlace
from threadis.coordinator.lua.sandbox import SandboxedScript
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.lua.sort_patterns import patterns, with_store_key
from threadis.coordinator.lua.transaction_scripts import TransactionScripts
from threadis.coordinator.multikey.copies import CopyStep
from threadis.coordinator.multikey.execution import lock_names
from threadis.coordinator.multikey.keyspace_view import KEYSPACE_QUERIES
from threadis.coordinator.multikey.recipes import other_databases
from threadis.coordinator.sessions.tracking_mode import TransactionTracking

MAY_CREATE_KEYS: Final = CREATE_KEYS | SCRIPTS
PLAIN_ROUTES: Final = frozenset({"keys", "split"})
# Run by the worker; they do not read the keyspace.
ASIDE_ROUTES: Final = frozenset({"session", "any", "pubsub", "refuse"})
PUBLISHES: Final = {"publish": CHANNEL, "spublish": SHARD}
EVERYWHERE: Final = SWEEPS | KEYSPACE_QUERIES
BETWEEN: Final = (
    b"-ERR threadis: %s between writes cannot be part of their transaction: put it before "
    b"them or after them\r\n"
)
BEFORE: Final = (
    b"-ERR threadis: %s before writes cannot be part of their transaction: send it before MULTI, "
    b"or put it after them\r\n"
)
NOT_ONE_WRITE: Final = resp.error(
    "ERR threadis: a script of this transaction needs what cannot be one write with the others: "
    "run it by itself"
)


class StepRoute(Enum):
    """Where a step is run."""

    ONE_INSTANCE = auto()
    BORROWED = auto()
    EVERYWHERE = auto()
    SCRIPT = auto()  # until it was analysed
    BY_WORKER = auto()
    BY_WORKER_IN_ORDER = auto()  # by the worker, but not within the write


@dataclass(frozen=True, slots=True)
class Step:
    """A command, its database, its locks, and the instances of its keys."""

    parsed: ParsedCommand
    db: int
    names: Sequence[Key]
    owners: Collection[int]
    route: StepRoute
    script: SandboxedScript | ScriptCall | None = None  # on one instance; or the call, if borrowed
    hides_keys: bool = False  # reads keys that are not known

    @property
    def name(self) -> str:
        """Its row's name."""
        return self.parsed.row.name

    @property
    def read_keys(self) -> list[bytes]:
        """The keys that it reads without changing them; of scripts this is known later."""
        row = self.parsed.row
        is_read = row.touches_keys and not row.writes and row.name not in SCRIPTS
        return [access.key for access in self.parsed.keys] if is_read else []

    @property
    def may_read(self) -> list[bytes]:
        """The same, and of scripts the declared keys."""
        is_script = self.name in SCRIPTS
        return [access.key for access in self.parsed.keys] if is_script else self.read_keys

    @property
    def is_written(self) -> bool:
        """Whether it is part of the write."""
        return self.route in (StepRoute.ONE_INSTANCE, StepRoute.BORROWED, StepRoute.EVERYWHERE)

    @property
    def writes(self) -> bool:
        """Whether it may change keys."""
        if self.name in SCRIPTS:
            return not self.name.endswith("_ro")
        return self.parsed.row.writes and not self.name.startswith("function|")

    @property
    def only_refuses(self) -> bool:
        """Whether it sets only what does not affect commands that are queued already."""
        options = {word.lower() for word in self.parsed.args[2::2]}
        return self.name == "config|set" and options <= REFUSING

    @property
    def piece(self) -> CopyStep:
        """The step as it runs on copies."""
        return CopyStep(
            self.parsed, self.db, self.script if isinstance(self.script, ScriptCall) else None
        )


class TransactionPlan:
    """The steps of one transaction, and what follows from them."""

    def __init__(
        self,
        steps: list[Step],
        db: int,
        write: range,
        stays: Collection[int],
        loaded_scripts: TransactionScripts,
    ) -> None:
        """``write``: the places of the write; ``stays``: the SELECTs that cannot be done."""
        self.write, self._stays, self.loaded_scripts = write, set(stays), loaded_scripts
        self.db = db
        self.steps = steps
        kinds = {step.route for step in self.steps}
        # The write does everything, in one database, with no instance but its keys'.
        self.is_plain = kinds <= {StepRoute.ONE_INSTANCE, StepRoute.BORROWED} and all(
            step.db == db and step.script is None and not step.hides_keys for step in self.steps
        )
        # It must be alone with the whole keyspace.
        self.needs_everything = not kinds.isdisjoint(
            (StepRoute.EVERYWHERE, StepRoute.BY_WORKER_IN_ORDER)
        ) or any(
            isinstance(step.script, ScriptCall) or step.hides_keys or step.name == "config|set"
            for step in self.steps
        )
        self.flushes = any(step.name in SWEEPS for step in self.steps)
        # Why one write cannot do all that is on keys, in a reply.
        self.obstacle = _obstacle(self.steps[write.start : write.stop])
        self.is_one_write = self.obstacle is None and any(step.is_written for step in self.steps)
        # The write is done in the protocol, and with the rights, in which EXEC came.
        leading = [step for step in steps[: write.start] if step.name in CHANGES_CLIENT]
        if leading:
            self.obstacle, self.is_one_write = BEFORE % leading[0].name.upper().encode(), False
        # Behind these, what is published is counted when its turn has come.
        names = [step.name for step in self.steps]
        self._first_listening = next(
            (at for at, name in enumerate(names) if name in CHANGES_AUDIENCE), len(names)
        )
        # It is atomic although one step runs after the other.
        self.may_run_in_order = sum(step.writes for step in self.steps) <= 1
        self.instances = set().union(*(step.owners for step in self.steps))
        self.locks = [name for step in self.steps for name in step.names]
        self.touched = [key for _, key, _ in self.locks]
        self.written_keys = [
            (where, key)
            for where, key, writes in self.locks
            if writes and not key.startswith(own_names.GROUP_LOCK)
        ]
        self.answered: Mapping[int, bytes] = {}  # what commands were, by their places
        self.tracked: TransactionTracking | None = None
        begins = (at for at, name in enumerate(names) if name in CHANGES_TRACKING)
        if (begin := next(begins, None)) is not None:
            before = [key for step in self.steps[:begin] for key in step.may_read]
            read = [key for step in self.steps[begin:] for key in step.may_read]
            is_caching = "client|caching" in names
            self.tracked = TransactionTracking(before, read, self.touched, is_caching=is_caching)

    def in_order(self) -> list[tuple[int, bytes]]:
        """Return the written keys; first those that were created, by the replies."""
        if not self.answered:
            return self.written_keys

        def makes_nothing(at: int) -> bool:
            reply = self.answered.get(at, b"")
            is_nothing = reply in resp.NULLS or reply.startswith((b"-", b":0\r"))
            return is_nothing or self.steps[at].name not in MAY_CREATE_KEYS

        return [
            (where, key)
            for at in sorted(range(len(self.steps)), key=makes_nothing)
            for where, key, writes in self.steps[at].names
            if writes and not key.startswith(own_names.GROUP_LOCK)
        ]

    def leaves_place(self, denied: Collection[int]) -> bool:
        """Whether later commands would be in other databases if these are denied."""
        selects = {at for at in denied if self.steps[at].name == "select"}
        return selects != self._stays

    def messages(self, denied: Collection[int], *, always: bool) -> list[Publication]:
        """Return the messages of PUBLISH that must be in order with those of scripts."""
        scripts = [step.script for step in self.steps if step.script is not None]
        bodies = [
            one.call.body if isinstance(one, SandboxedScript) else one.body for one in scripts
        ]
        if not always and all(body and b"publish" not in body.lower() for body in bodies):
            return []
        return [
            Publication(at, PUBLISHES[step.name], *step.parsed.args[1:3])
            for at, step in enumerate(self.steps)
            if step.name in PUBLISHES and at in self.write and at not in denied
            if at < self._first_listening
        ]


class TransactionParts:
    """A write's part for each instance, and where each step's reply will be."""

    def __init__(self, steps: Sequence[Step], order: Sequence[int], db: int) -> None:
        """All parts begin and end in database ``db``; ``order`` has the steps' places."""
        self.parts: dict[int, list[Words]] = defaultdict(list)
        self.order: dict[PartPlace, int] = {}  # the step of each command of a part
        self.scripts: dict[PartPlace, SandboxedScript] = {}
        self._loaded: dict[int, set[bytes]] = defaultdict(set)
        self._places: list[list[PartPlace]] = []
        self._names = [step.name for step in steps]
        where: dict[int, int] = {}
        for number, step in zip(order, steps, strict=True):
            places = []
            for index in sorted(step.owners):
                if where.get(index, db) != step.db:
                    self._add(index, [b"SELECT", b"%d" % step.db], number)
                    where[index] = step.db
                if isinstance(step.script, SandboxedScript):
                    places.append(self._add_script(index, step.script, number))
                else:
                    places.append(self._add(index, step.parsed.args, number))
            self._places.append(places)
        for index, now in where.items():
            if now != db:
                self._add(index, [b"SELECT", b"%d" % db], 0)

    def _add_script(self, index: int, script: SandboxedScript, number: int) -> PartPlace:
        """Add a script, and load it again: SCRIPT FLUSH may come meanwhile."""
        call = script.call
        is_named = call.words[0].lower().startswith(b"evalsha")
        if is_named and call.name not in self._loaded[index]:
            self._loaded[index].add(call.name)
            self._add(index, [b"SCRIPT", b"LOAD", call.body], number)
        place = self._add(index, call.words, number)
        self.scripts[place] = script
        return place

    def _add(self, index: int, words: Words, number: int) -> PartPlace:
        place = (index, len(self.parts[index]))
        self.parts[index].append(words)
        self.order[place] = number
        return place

    def replies(self, found: dict[int, list[bytes]]) -> list[bytes]:
        """Return each step's reply."""
        of_each = [[found[index][at] for index, at in places] for places in self._places]
        return [_merged(name, each) for name, each in zip(self._names, of_each, strict=True)]


def read_steps(
    commands: Sequence[Words],
    db: int,
    table: CommandTable,
    databases: int,
    everyone: Collection[int],
    stays: Collection[int],
    *,
    has_pins: bool,
) -> Iterator[Step]:
    """Yield a step for each command; ``stays`` are the SELECTs that are not done."""
    for at, args in enumerate(commands):
        parsed = table.parse(args)
        named: Sequence[bytes] = ()
        if parsed.row.name in ("sort", "sort_ro") and parsed.keys:
            named, parsed = patterns(args), with_store_key(parsed)
        names, owners = lock_names(parsed.keys, db), table.owners(parsed, db)
        far = other_databases(parsed, db)
        owners.update(table.owner(where, key) for where, key, _ in far)
        route, hides_keys = _route_of(parsed, owners), bool(named)
        if hides_keys:
            route = StepRoute.BORROWED
        if parsed.row.name == "swapdb" and has_pins:
            route = StepRoute.BY_WORKER_IN_ORDER
        elif parsed.row.name == "swapdb" and not are_client_databases(args[1:], databases):
            route = StepRoute.ONE_INSTANCE
        if route is StepRoute.ONE_INSTANCE and not owners:  # any server returns the error
            owners = {min(everyone)}
        where = everyone if route is StepRoute.EVERYWHERE else owners
        yield Step(parsed, db, [*names, *far], where, route, hides_keys=hides_keys)
        if parsed.row.name == "select" and at not in stays:
            db = database_after_select(args[1], db, databases)


def find_write(steps: list[Step]) -> tuple[list[Step], range]:
    """Find the places of the write; reads on either side of it are run by the worker."""
    last_script = max((at for at, step in enumerate(steps) if step.name in SCRIPTS), default=-1)
    steps = [
        replace(step, route=StepRoute.BY_WORKER) if at > last_script and step.only_refuses else step
        for at, step in enumerate(steps)
    ]
    writing = [at for at, step in enumerate(steps) if step.writes]
    in_order = [at for at, step in enumerate(steps) if step.route is StepRoute.BY_WORKER_IN_ORDER]
    # A client that subscribes before all writes gets their messages.
    listening = [at for at, step in enumerate(steps) if step.name in CHANGES_AUDIENCE]
    if not writing or not (in_order or listening):
        return steps, range(len(steps))
    begin = max((at + 1 for at in (*in_order, *listening) if at < writing[0]), default=0)
    write = range(begin, min((at for at in in_order if at > writing[-1]), default=len(steps)))
    is_apart = (
        at not in write and step.route is not StepRoute.BY_WORKER_IN_ORDER
        for at, step in enumerate(steps)
    )
    pairs = zip(steps, is_apart, strict=True)
    return [
        replace(step, route=StepRoute.BY_WORKER) if apart else step for step, apart in pairs
    ], write


def _obstacle(steps: Sequence[Step]) -> bytes | None:
    """Return the error if these steps cannot be one atomic write."""
    for step in steps:
        if step.route is StepRoute.BY_WORKER_IN_ORDER:
            name = step.name.replace("|", " ").upper().encode()
            return (BEFORE if step.name in CHANGES_CLIENT else BETWEEN) % name
    return None


def _route_of(parsed: ParsedCommand, owners: Collection[int]) -> StepRoute:
    row = parsed.row
    if row.name in SCRIPTS:
        return StepRoute.SCRIPT
    if row.route in PLAIN_ROUTES or row.blocks or row.name == "move":
        return StepRoute.ONE_INSTANCE if len(owners) <= 1 else StepRoute.BORROWED
    if row.name in EVERYWHERE:
        return StepRoute.EVERYWHERE
    is_aside = row.route in ASIDE_ROUTES and row.name not in CHANGES_SESSION
    is_aside |= row.name in CHANGES_TRACKING
    if not (row.writes or parsed.keys) and (is_aside or row.name in INDEPENDENT):
        return StepRoute.BY_WORKER
    return StepRoute.BY_WORKER_IN_ORDER


def _merged(name: str, replies: list[bytes]) -> bytes:
    """Merge the replies of all instances."""
    error = next((reply for reply in replies if reply.startswith(b"-")), None)
    if error is not None or len(replies) == 1 or name in SWEEPS:
        return error or replies[0]
    if name == "randomkey":
        found = [reply for reply in replies if reply not in resp.NULLS]
        return random.choice(found or replies)  # noqa: S311 - as random as RANDOMKEY
    if name == "dbsize":
        return resp.integer(sum(int(reply[1:-2]) for reply in replies))
    return resp.array([one for reply in replies for one in _core.elements(reply)])
