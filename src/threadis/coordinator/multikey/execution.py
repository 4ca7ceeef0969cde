"""Runs commands whose keys live on several instances.

``RECIPES`` (in ``recipes``) has those that are a few ordinary commands on each side; for all others
one instance borrows the keys.
"""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from threadis.coordinator.base.command_table import CommandTable, KeyAccess, ParsedCommand
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.fenced import Script
from threadis.coordinator.instances.links import Kind, LinkError, Links
from threadis.coordinator.instances.near_maxmemory import NearMaxmemory
from threadis.coordinator.keys.colocation import Colocation
from threadis.coordinator.keys.keyspace_events import Events, MarkedParts
from threadis.coordinator.keys.locks import Key, Lock, Locks
from threadis.coordinator.keys.own_reads import OwnReads
from threadis.coordinator.keys.write_parts import Part, PartPlace
from threadis.coordinator.lua.sort_patterns import sort_keys
from threadis.coordinator.multikey import oom_blocks, recipes, set_operations
from threadis.coordinator.multikey.borrowing import Borrowing
from threadis.coordinator.multikey.commits import Commits
from threadis.coordinator.multikey.copies import CopyStep
from threadis.coordinator.multikey.copy_run import CopyRun
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.sessions.tracking import Tracking


class Execution:
    """Runs one command over several instances, under locks on its keys."""

    def __init__(
        self,
        links: Links,
        locks: Locks,
        table: CommandTable,
        colocation: Colocation,
        commits: Commits,
        databases: int,
        tracking: Tracking,
        events: Events,
        near_maxmemory: NearMaxmemory,
    ) -> None:
        self.near_maxmemory = near_maxmemory
        self.own_reads = OwnReads(links, events)
        self.events = events
        self.links = links
        self.tracking = tracking
        self.locks = locks
        self.table = table
        self.colocation = colocation
        self.commits = commits
        self.borrowing = Borrowing(links, table, databases, self.own_reads)

    async def execute(
        self, args: Sequence[bytes], db: int, kind: Kind, within: int | None = None
    ) -> bytes:
        """Run a command in a database; return the reply in the protocol of ``kind``."""
        return await self.run(self.table.parse(args), db, kind, within)

    async def run(
        self, parsed: ParsedCommand, db: int, kind: Kind, within: int | None = None
    ) -> bytes:
        """The same for a parsed command."""
        args, keys = parsed.args, parsed.keys
        if parsed.row.name in ("sort", "sort_ro"):
            keys = await sort_keys(self.table, self.own_reads, parsed, db)
        owners = set(await offload(len(keys), self.table.owners_of, db, keys))
        if len(owners) <= 1 and not recipes.other_databases(parsed, db):
            # One server can run it; if there are no keys, it returns the error. But not between the
            # reads and the writes of a command on several instances.
            index = owners.pop() if owners else self.links.any_ready()
            named = [(db, access.key) for access in keys]
            async with self.locks.exclude_holders(named, within):
                return (await self.links.raw(index, [args], db=db, kind=kind))[0]
        if refusal := await self.near_maxmemory.refusal_of(args, db, kind):
            return refusal
        plan = recipes.RECIPES.get(parsed.row.name)
        extra = recipes.other_databases(parsed, db)
        names = await offload(len(keys), lock_names, keys, db)
        async with self.hold([*names, *extra], within) as lock:
            try:
                async with self.events.of_one_command(db):
                    if plan:
                        return await plan(recipes.Job(self, parsed, db, kind, lock))
                    if set_operations.applies_to(parsed):
                        with contextlib.suppress(set_operations.NotApplicableError):
                            return await set_operations.run(self, parsed, db, kind, lock)
                    piece = CopyStep(replace(parsed, keys=keys), db)
                    return (await self.borrow([piece], db, kind, lock))[0]
            except RefusedError as error:
                return error.reply

    @contextlib.asynccontextmanager
    async def hold(self, names: list[Key], within: int | None = None) -> AsyncIterator[Lock]:
        """Lock keys, with nothing in flight to their instances."""
        keys, instances = await offload(len(names), self._to_lock, names)
        async with self.locks.hold(keys, instances, within) as lock:
            yield lock

    def _to_lock(self, names: list[Key]) -> tuple[list[Key], set[int]]:
        """Return what to lock for these keys, and their instances."""
        by_db: dict[int, list[bytes]] = defaultdict(list)
        for db, key, _ in names:
            by_db[db].append(key)
        instances = {
            index for db, keys in by_db.items() for index in self.table.owners_by_name(db, keys)
        }
        return [*names, *self.colocation.locks(names)], instances

    async def borrow(
        self, pieces: Sequence[CopyStep], db: int, kind: Kind, lock: Lock
    ) -> list[bytes]:
        """Run commands on borrowed keys as one, and write back what has changed; return their
        replies.

        RefusedError if a server refuses.
        """
        return await CopyRun(self, pieces, db, kind).run(lock)

    def need_memory(self, commands: Iterable[Sequence[bytes]]) -> bool:
        """Whether a server without memory refuses one of these commands."""
        rows = (self.table.look_up(words[:2]) for words in commands)
        return any(row is None or row.needs_memory for row in rows)

    def require_ready(self, needed: Iterable[int]) -> None:
        """Raise LinkError, before anything has happened, if one of these instances is not ready."""
        ready = set(self.links.ready()) - self.links.unprepared
        if down := [index for index in needed if index not in ready]:
            raise LinkError(f"TRYAGAIN instance {down[0]} is not ready; nothing was run")

    async def missing(self, keys: Iterable[KeyAccess], db: int) -> list[bytes]:
        """Return keys that do not exist although no command has removed them: they have expired.

        If an instance is lost, clients that track are told to forget everything anyway.
        """
        by_owner: dict[int, list[bytes]] = defaultdict(list)
        for access in keys:
            if access.writes and not access.removes:
                by_owner[self.table.owner(db, access.key)].append(access.key)
        found = []
        for index, names in by_owner.items():
            with contextlib.suppress(LinkError):
                questions = [[b"EXISTS", key] for key in names]
                replies = await self.own_reads.ask(index, questions, db=db)
                pairs = zip(names, replies, strict=True)
                found += [key for key, reply in pairs if reply == b":0\r\n"]
        return found

    def home(self, db: int, keys: Sequence[bytes]) -> int:
        """Choose the instance that borrows these keys.

        While clients track keys, it is one that has none of them: there, copies look like changes.
        """
        return self.home_of(self.table.owners_by_name(db, keys))

    def home_of(self, owners: Sequence[int]) -> int:
        """The same, given the owners of the keys."""
        others = [index for index in self.links.ready() if index not in owners]
        if self.tracking.is_on and others:
            return others[0]
        return owners[0] if owners else self.links.any_ready()

    async def commit(
        self,
        parts: dict[int, Part],
        lock: Lock,
        db: int,
        kind: Kind | None = None,
        *,
        needs_memory: bool = True,
        steps: Mapping[PartPlace, int] | None = None,
        makes_new: bool = False,
        scripts: Mapping[PartPlace, Script] | None = None,
    ) -> dict[int, list[bytes]]:
        """Write on several instances, all or nothing; without memory only what needs none.

        Events of the commands are published in the order of ``steps``. Without it none are
        published, except that keys are new if this ``makes_new`` ones.
        """
        kind = kind or Kind()
        size, asks = sum(map(len, parts.values())), self.tracking.is_on
        marked = await offload(size, MarkedParts, parts, steps, db, makes_new=makes_new, asks=asks)
        run = partial(self.commits.run, lock=lock, db=db, kind=kind)
        try:
            fenced = marked.moved(scripts or {})
            try:
                found = await run(marked.parts, scripts=fenced)
            except RefusedError as error:
                if not scripts or not error.reply.startswith(oom_blocks.NO_MEMORY):
                    raise
                found = await run(marked.parts, scripts=fenced, is_scarce=True)
            for index, words, reply in marked.asked(found):
                await self.own_reads.note(index, [words], [reply])
            if expired := marked.expired(found):
                self.tracking.changed(expired)
            return await offload(size, marked.replies, found)
        except RefusedError as error:
            commands = itertools.chain.from_iterable(parts.values())
            is_scarce = error.reply.startswith(oom_blocks.NO_MEMORY)
            if needs_memory or scripts or not is_scarce:
                raise
            if not oom_blocks.can_return(commands, kind.resp):
                raise
        return await run(parts, is_scarce=True)


def lock_names(keys: Iterable[KeyAccess], db: int) -> list[Key]:
    """Build the locks of a command's keys."""
    return [(db, access.key, access.writes) for access in keys]
