"""Runs commands and scripts of one client on copies: one command, or a whole transaction as one
write.

One block makes the copies, runs the commands, and finds what has changed (see ``copies``). The keys
that SORT's patterns name, and that scripts touch besides their own, are known only afterwards: a
run that lacked keys does not count, and is repeated with copies of these, too. FLUSHDB, FLUSHALL
and SWAPDB are applied to the copies. On the instances they run first, in order; then each key that
the commands name gets its value from the copies.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Final

from threadis import own_names, resp
from threadis.coordinator.base.command_table import KeyAccess
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.fenced import FencedReplies
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.keyspace_events import command_events
from threadis.coordinator.keys.locks import Lock
from threadis.coordinator.keys.write_parts import Part
from threadis.coordinator.lua.sandbox_user import LISTED_LIMIT
from threadis.coordinator.multikey import borrowing
from threadis.coordinator.multikey.copies import CopyBlock, CopyStep, LentByDatabase, LentKeys
from threadis.coordinator.multikey.keyspace_view import KEYSPACE_QUERIES, KeyspaceView
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.recipes import other_databases
from threadis.coordinator.multikey.script_trial import ScriptTrial

if TYPE_CHECKING:
    from threadis.coordinator.multikey.execution import Execution

TRIES: Final = 100  # each shows keys that the one before did not
TOO_MANY: Final = resp.error(
    f"ERR threadis: a transaction that needs keys of several instances together can use "
    f"at most {own_names.COPIES} databases; split it"
)
NO_END: Final = resp.error("ERR threadis: the keys that SORT refers to changed in every attempt")


class CopyRun:
    """Runs of the same commands, repeated until one has all that it needs."""

    def __init__(
        self,
        execution: "Execution",
        pieces: Sequence[CopyStep],
        db: int,
        kind: Kind,
        trial: ScriptTrial | None = None,
    ) -> None:
        """The write begins in database ``db``; the ``trial`` has the scripts."""
        self._execution, self._pieces, self._scripts = execution, pieces, trial
        self._db, self._kind = db, kind
        rows = (piece.parsed.row for piece in pieces)
        # A script that needs memory is refused on the copies.
        self._needs_memory = any(row.needs_memory for row in rows)
        self._sweeps = [piece for piece in pieces if piece.sweeps]
        names_of_sweeps = {piece.name for piece in self._sweeps}
        swept = {db for piece in self._sweeps for db in piece.swept}
        far = [(piece, other_databases(piece.parsed, piece.db)) for piece in pieces]
        dbs = swept.union(
            (piece.db for piece in pieces), (db for _, names in far for db, _, _ in names)
        )
        if "flushall" in names_of_sweeps:
            swept |= dbs
        if len(dbs) > own_names.COPIES:
            raise RefusedError(TOO_MANY)
        self._swapped = swept if "swapdb" in names_of_sweeps else set()
        writes_all, first = trial is not None and trial.writes, execution.borrowing.scratch
        self._lents: LentByDatabase = {
            db: LentKeys(
                first + at,
                db in swept,
                reads_all=len(dbs) > 1 or db in swept or trial is not None,
                writes_all=writes_all or db in swept,
            )
            for at, db in enumerate(sorted(dbs))
        }
        for piece, names in far:
            for access in piece.parsed.keys:
                self._lents[piece.db].add(access)
            for where, key, _ in names:
                self._lents[where].add(KeyAccess(key, reads=True, writes=True))
        self.missing: dict[int, set[bytes]] = {}  # in the run before
        self.changed: list[Place] = []  # what scripts have, or may have, in their order

    def keys(self, db: int) -> list[bytes]:
        """Return the keys of a database that are lent."""
        return list(self._lents[db].keys)

    def unchanged(self) -> list[bytes]:
        """Return the keys that are lent and that the scripts have not changed."""
        changed = set(self.changed)
        lents = self._lents.items()
        return [key for db, lent in lents for key in lent.keys if (db, key) not in changed]

    def lend(self, keys: Iterable[bytes], db: int) -> None:
        """Lend more keys, for reading."""
        for key in keys:
            self._lents[db].add(KeyAccess(key, reads=True, writes=False))

    async def lend_all(self) -> bool:
        """Lend all keys of the scripts' databases; False if these are too many. The caller holds
        the lock on everything.
        """
        links, calls = self._execution.links, self._scripts.calls if self._scripts else ()
        dbs = {call.db for call in calls} | self._swapped
        sizes = [size for db in dbs for size in await links.call_all(b"DBSIZE", db=db)]
        if sum(sizes) > LISTED_LIMIT:
            return False
        for db in dbs:
            for found in await links.call_all(b"KEYS", b"*", db=db):
                await offload(len(found), self.lend, found, db)
        return True

    async def run(self, lock: Lock) -> list[bytes]:
        """Run commands without scripts; return their replies."""
        for _ in range(TRIES):
            if (replies := await self.attempt(lock)) is not None:
                return replies
        raise RefusedError(NO_END)

    async def attempt(self, lock: Lock) -> list[bytes] | None:
        """Run once; return the replies, or None if keys were missing, or scripts were refused
        something. Missing keys are lent to the next attempt.

        RefusedError if a server refuses.
        """
        pieces, execution = self._pieces, self._execution
        if mine := command_events.get():
            mine.begin(list(self._lents))
        await self._fetch()
        home = await offload(
            sum(len(lent.keys) for lent in self._lents.values()), self._choose_borrower
        )
        block, found = await self._run_on_copies(home, asks=lock.everything)
        if any(self.missing.values()) or (self._scripts and self._scripts.refused):
            if mine:
                mine.is_void = True
            for db, keys in self.missing.items():
                await offload(len(keys), self.lend, keys, db)
            return None
        view = None
        if asked := [piece.parsed.args for piece in pieces if piece.name in KEYSPACE_QUERIES]:
            view = await KeyspaceView.look(execution.links, asked, list(self._lents))
            view.without({db: lent.copies.keys() for db, lent in self._lents.items()})
        parts = _WriteParts(self._db, execution.links.all_instances())
        for piece in self._sweeps:
            parts.sweep(piece)
        changes = {db: await block.changes(db, found) for db in self._lents}
        for db, lent in self._lents.items():
            if not lent.is_swept:
                changes[db] = await execution.borrowing.without_conversions(
                    home, lent.copies, changes[db]
                )
        for db, changed in changes.items():
            writes = await offload(len(changed), execution.borrowing.writes, changed, db)
            for index, part in writes.items():
                parts.add(index, db, part)
        if written := parts.all():
            needs_memory = self._needs_memory
            await execution.commit(written, lock, self._db, needs_memory=needs_memory)
        if self._scripts:
            size = sum(map(len, changes.values()))
            self.changed = await offload(size, self._scripts.changed, changes)
        replies = block.replies(found)
        if view:
            for at, piece in enumerate(pieces):
                replies[at] = view.reply(piece.parsed.args, replies[at], piece.db)
                if piece.sweeps:
                    view.sweep(piece.parsed.args, piece.db)
        return replies

    async def _fetch(self) -> None:
        """Copy all keys that are named; SWAPDB may bring them to another database."""
        lents = self._lents
        names = {key for db in self._swapped for key in lents[db].keys}
        for db in self._swapped:
            self.lend(names, db)
        for db, lent in lents.items():
            lent.copies = await self._execution.borrowing.fetch(lent.keys.values(), db)
        sizes = (len(copy.dump) for lent in lents.values() for copy in lent.copies.values())
        borrowing.check_size(sum(sizes))

    def _choose_borrower(self) -> int:
        """Choose the instance that has the copies."""
        table = self._execution.table
        owners = [table.owners_by_name(db, list(one.keys)) for db, one in self._lents.items()]
        return self._execution.home_of(list(itertools.chain.from_iterable(owners)))

    async def _run_on_copies(
        self, home: int, *, asks: bool
    ) -> tuple[CopyBlock, list[FencedReplies]]:
        """Run everything on copies; RefusedError if a server refuses."""
        execution, lents, trial = self._execution, self._lents, self._scripts
        size = sum(len(lent.keys) for lent in lents.values())
        scratch = execution.borrowing.scratch
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(execution.links.lease(home, self._kind, scratch))
            fences = await trial.wrap(stack, link, lents) if trial else []
            sweeps = trial is not None and trial.is_monitored
            block = await offload(
                size, CopyBlock, lents, self._pieces, fences, asks=asks, sweeps=sweeps
            )
            async with trial.running(home, lents) if trial else nullcontext():
                found = await block.run(link, execution.borrowing, needs_memory=self._needs_memory)
            self.missing = await block.missing(found)
            if trial:
                await trial.judge(link, block.scripts(found), lents, self.missing)
        return block, found


class _WriteParts:
    """A write's part for each instance, which begins and ends in one database."""

    def __init__(self, db: int, everyone: Collection[int]) -> None:
        self._db, self._everyone = db, everyone
        self._parts: dict[int, list[Words]] = defaultdict(list)
        self._now: dict[int, int] = {}

    def sweep(self, piece: CopyStep) -> None:
        """Add a command that changes whole databases."""
        for index in self._everyone:
            self.add(index, piece.db, [piece.parsed.args])

    def add(self, index: int, db: int, words: Iterable[Words]) -> None:
        """Add commands in a database."""
        if self._now.get(index, self._db) != db:
            self._parts[index].append([b"SELECT", b"%d" % db])
        self._now[index] = db
        self._parts[index] += words

    def all(self) -> dict[int, Part]:
        """Return all parts."""
        for index in list(self._parts):
            self.add(index, self._db, [])
        return dict(self._parts)
