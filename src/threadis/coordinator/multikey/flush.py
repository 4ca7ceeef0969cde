"""FLUSHALL, FLUSHDB and SWAPDB, under the lock on everything.

They write the same records as other writes over several instances (``commits``), so they happen
everywhere or nowhere, also if a process is killed. But nothing else runs meanwhile. So an instance
that is lost in the middle is waited for, and a mark there says whether it has done its part::

    participants: SET prepared:ID
    leader:       the command, SET decided:ID                     the mark is decided:ID
    participants: the command, DEL prepared:ID, SET swept:ID      the mark is swept:ID
    all:          DEL decided:ID, DEL swept:ID                    soon
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import msgspec

from threadis import _core, control, own_names, resp
from threadis.coordinator.base.databases import is_flush_syntax
from threadis.coordinator.instances.links import Kind, LinkError, Links, UnknownOutcomeError, Words
from threadis.coordinator.keys.locks import Locks
from threadis.coordinator.multikey import oom_blocks, pending_writes
from threadis.coordinator.multikey.commits import ClosedConnection, Commits, connection_of
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.records import PreparedRecord
from threadis.coordinator.sessions.tracking import Tracking

RETRY: Final = 0.1  # seconds before an instance that was lost in the middle is asked again
PATIENCE: Final = 30.0  # seconds in which it comes back, if it ever does
KEPT: Final = b"600"  # seconds for which an instance knows that it has done its part


class Flush:
    """Runs a command on every instance while nothing else runs."""

    def __init__(
        self,
        start: control.Start,
        links: Links,
        locks: Locks,
        tracking: Tracking,
        commits: Commits,
    ) -> None:
        self._links = links
        self._locks = locks
        self._databases = start.databases
        self._records = own_names.records(start.databases)
        self._pinned = dict(start.pins).keys()
        self._tracking = tracking
        self._commits = commits

    async def flush(self, command: _core.Command) -> bytes:
        """FLUSHALL and FLUSHDB [ASYNC|SYNC]."""
        _, *options = command.args
        return await (
            self._run_everywhere(command)
            if is_flush_syntax(options)
            else self._syntax_error(command)
        )

    async def swap(self, command: _core.Command) -> bytes:
        """SWAPDB; hidden databases are out of range, pinned ones are refused."""
        words = command.args[1:]
        indices = [int(word) for word in words if word.isdigit() and b"%d" % int(word) == word]
        if len(indices) != 2 or len(words) != 2:
            return await self._syntax_error(command)
        if any(self._databases <= one < 2**31 for one in indices):
            return resp.error("ERR DB index is out of range")
        if any(one >= 2**31 for one in indices):
            return await self._syntax_error(command)
        pinned = self._pinned & set(indices)
        if pinned:
            return resp.error(
                f"ERR threadis: database {min(pinned)} is pinned to an instance; SWAPDB would have "
                "to move all its keys to other instances"
            )
        return await self._run_everywhere(command)

    async def _syntax_error(self, command: _core.Command) -> bytes:
        """Return an instance's error."""
        return (await self._links.raw(self._links.any_ready(), [command.args]))[0]

    async def _run_everywhere(self, command: _core.Command) -> bytes:
        down = [i for i in self._links.all_instances() if i not in self._links.ready()]
        if down:
            raise LinkError(f"TRYAGAIN instance {down[0]} is not ready; the command was not run")
        async with self._locks.hold_everything(command.token), self._tracking.flushing():
            leader, *participants = self._links.all_instances()
            with self._commits.begin() as name:
                sweep = FlushRun(self._links, self._commits, self._records, name, command)
                return await sweep.run(leader, participants)


class FlushRun:
    """One command on all instances. The caller holds the lock on everything."""

    def __init__(
        self, links: Links, commits: Commits, records: int, name: bytes, command: _core.Command
    ) -> None:
        self._links = links
        self._commits = commits
        self._records = records  # their database
        self._name = name
        self._words, self._db = command.args, command.info.db
        self._lost: list[ClosedConnection] = []  # that an instance may not have read to the end

    async def run(self, leader: int, participants: list[int]) -> bytes:
        """Run it; return the reply."""
        try:
            await _all_of(self._prepare(index, leader) for index in participants)
            decided = own_names.DECIDED + self._name
            decide: Words = [b"SET", decided, msgspec.json.encode(participants)]
            try:
                reply = await self._run_at(leader, [decide], decided, has_begun=False)
            except RefusedError:
                if await self._exists(leader, decided):
                    await pending_writes.delete(self._links, leader, self._records, decided)
                raise
            prepared, swept = own_names.PREPARED + self._name, own_names.SWEPT + self._name
            done: list[Words] = [[b"DEL", prepared], [b"SET", swept, b"", b"EX", KEPT]]
            await _all_of(
                self._run_at(index, done, swept, has_begun=True) for index in participants
            )
        except RefusedError as error:
            self._commits.resolve_later(self._name, leader, participants, self._lost)
            return error.reply
        except LinkError:
            self._commits.resolve_later(self._name, leader, participants, self._lost)
            raise
        self._commits.delete_soon(leader, decided)
        for index in participants:
            self._commits.delete_soon(index, swept)
        return reply

    async def _prepare(self, index: int, leader: int) -> None:
        payload = PreparedRecord(leader, self._db, [], [self._words]).encode()
        note: Words = [b"SET", own_names.PREPARED + self._name, bytes(payload)]
        try:
            await self._block(index, [note], self._records)
        except UnknownOutcomeError as error:
            what = "did not answer; the command was not run"
            raise LinkError(f"TRYAGAIN instance {index} {what}") from error

    async def _run_at(
        self, index: int, records: list[Words], mark: bytes, *, has_begun: bool
    ) -> bytes:
        """Run it at an instance; if that is lost in the middle, once it is back.

        ``records`` are written with it; if the ``mark`` exists, it has run. UnknownOutcomeError if
        the instance is lost for long. If the command has not ``has_begun`` anywhere: LinkError,
        RefusedError.
        """
        hidden, back = [b"SELECT", b"%d" % self._records], [b"SELECT", b"%d" % self._db]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        is_unknown = False
        while True:
            try:
                await self._wait_until_drained(index)
                if is_unknown and await self._exists(index, mark):
                    return resp.OK
                commands = [self._words, hidden, *records, back]
                return await self._block(index, commands, self._db, is_owed=has_begun)
            except (LinkError, RefusedError) as error:
                is_unknown = is_unknown or isinstance(error, UnknownOutcomeError)
                if not (has_begun or is_unknown):
                    raise
                if loop.time() > deadline:
                    raise UnknownOutcomeError(
                        f"ERR instance {index} was lost during a write to all instances; it will "
                        "be completed when it is back"
                    ) from error
                await asyncio.sleep(RETRY)

    async def _wait_until_drained(self, index: int) -> None:
        for lost in [lost for lost in self._lost if lost[0] == index]:
            await self._commits.check_drained(lost)
            self._lost.remove(lost)

    async def _exists(self, index: int, record: bytes) -> bool:
        return bool(await self._links.call(index, b"EXISTS", record, db=self._records) == 1)

    async def _block(
        self, index: int, commands: list[Words], db: int, *, is_owed: bool = False
    ) -> bytes:
        """Run commands as one block, also without memory; return the first reply.

        RefusedError if that is an error.
        """
        block = oom_blocks.block(commands, 2)
        async with self._links.lease(index, Kind(), db) as link:
            try:
                (reply,) = await link.ask(block, wait=None)
                if is_owed and reply.startswith(b"-"):
                    (reply,) = await pending_writes.run_with_option_off(link, [block], reply) or [
                        reply
                    ]
            except UnknownOutcomeError:
                self._lost.append(connection_of(link))
                raise
        result = (await oom_blocks.results(reply, commands, 2) or [reply])[0]
        if result.startswith(b"-"):
            raise RefusedError(result)
        return result


async def _all_of(jobs: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run all to their ends; then raise the first exception."""
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
