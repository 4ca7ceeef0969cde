"""Atomic writes over several instances, also if a process is killed in the middle.

Workers commit ordinary writes by themselves (``commands/commit.rs``), in the same way. Here are
all others, and whatever went wrong.

It is a two-phase commit with stock commands. The records live in a database that clients cannot see
(``records``)::

    participants: SET prepared:ID              their parts, and the leader
                  MULTI, commands …            all must say QUEUED, else DISCARD everywhere
    leader:       MULTI, commands …, SET decided:ID, EXEC     the moment of the commit
    participants: … DEL prepared:ID, EXEC
    leader:       DEL decided:ID               soon, many at once

After a crash, an instance with ``prepared:ID`` is resolved by asking its leader: if it has decided,
the part is run now, else it is dropped. Until then the keys stay locked.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import hiredis
import msgspec

from threadis import _core, own_names, resp
from threadis.catalog.commands import SWEEPS
from threadis.coordinator.base.command_table import CommandTable
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.fenced import Script
from threadis.coordinator.instances.links import Kind, Link, LinkError, Links
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.locks import Key, Lock, Locks
from threadis.coordinator.keys.write_parts import Part, PartPlace
from threadis.coordinator.multikey import oom_blocks, pending_writes
from threadis.coordinator.multikey.phases import (
    FencedScripts,
    Phases,
    exec_results,
    incomplete_write,
)
from threadis.coordinator.multikey.records import PreparedRecord

log = logging.getLogger(__name__)

FORGET_AFTER = 0.02  # seconds; a record that stays for so long costs some hundred bytes
FORGET_AGAIN = 1.0  # seconds until they are deleted where that has failed
RETRY = 0.05  # seconds between attempts to resolve what a crash left

# The instance, its process's socket, and what CLIENT LIST shows of the connection.
ClosedConnection = tuple[int, str, bytes]


class Commits:
    """Writes over several instances, and what crashes left of them."""

    def __init__(
        self, core: _core.Proxy, links: Links, locks: Locks, table: CommandTable, databases: int
    ) -> None:
        self._workers = _core.WorkerCommits(core)
        self._links = links
        self._locks = locks
        self._table = table
        self._records = own_names.records(databases)
        self._phases = Phases(links, self._records)
        self._done: dict[int, list[bytes]] = {}  # records to delete, by instance
        self._deleting = [asyncio.Lock() for _ in links.all_instances()]
        self._late: set[int] = set()  # instances that did not delete theirs in time
        self._running: set[bytes] = set()  # IDs that this process will resolve
        self._resolving = asyncio.Lock()
        self._tasks = Tasks()
        self._had: Counter[int] = Counter()  # records, by instance

    async def run(
        self,
        parts: Mapping[int, Part],
        lock: Lock,
        *,
        db: int,
        kind: Kind,
        is_scarce: bool = False,
        scripts: Mapping[PartPlace, Script] | None = None,
    ) -> dict[int, list[bytes]]:
        """Run each part on its instance as one block; return the replies of the commands.

        If memory ``is_scarce``, participants do not queue their parts first, unless there are
        ``scripts`` among the commands. The caller holds ``lock`` on all keys. Raises RefusedError
        if nothing was done, LinkError if that is not known yet; then the lock is kept until it is.
        """
        leader, *participants = sorted(parts, key=lambda index: (-len(parts[index]), index))
        # Those of the others ``prepare`` checks.
        await offload(len(parts[leader]), self._links.limits.check, parts[leader])
        fenced = FencedScripts(scripts or {})
        if not participants:
            if is_scarce and not scripts:
                return {leader: await self._run_without_memory(leader, parts[leader], db, kind)}
            async with self._links.lease(leader, kind, db) as link:
                return {leader: await fenced.run(link, parts[leader])}
        name = _core.unique_name()
        self._running.add(name)
        try:
            return await self._run_all(
                parts, lock, leader, participants, name, db, kind, fenced, is_scarce=is_scarce
            )
        finally:
            if not lock.is_kept:
                self._running.discard(name)

    async def _run_all(
        self,
        parts: Mapping[int, Part],
        lock: Lock,
        leader: int,
        participants: list[int],
        name: bytes,
        db: int,
        kind: Kind,
        scripts: FencedScripts,
        *,
        is_scarce: bool,
    ) -> dict[int, list[bytes]]:
        async with AsyncExitStack() as stack:
            links = {}
            for index in (leader, *participants):
                lease = self._links.lease(index, kind, db)
                links[index] = await stack.enter_async_context(lease)
            leader_link = links.pop(leader)
            keys = lock.keys or list(self._keys_of(parts.values(), db))
            try:
                record = PreparedRecord(leader, db, keys, [])
                await self._phases.prepare(links, parts, record, name, scripts, is_scarce=is_scarce)
            except LinkError:  # nothing will be decided, but records may have been written
                self._spawn(self._resolve_all(name, leader, participants))
                raise
            try:
                done = await self._phases.decide(
                    leader_link, parts[leader], links, name, db, scripts, is_scarce=is_scarce
                )
                replies = {leader: done}
            except LinkError:
                self._mark_in_doubt(lock, parts, keys, leader)
                self._keep_lock(lock, name, leader, participants, [leader_link])
                raise
            is_one_script = is_scarce and not scripts
            for index, link in links.items():
                whole = [*parts[index], *self._phases.participant_end(name, db)]
                link.send(oom_blocks.block(whole, kind.resp) if is_one_script else [b"EXEC"])
            for index, link in links.items():
                told = parts[index] if is_one_script else ()
                results = await scripts.results_of(index, link, told)
                if results and results[-1] != resp.OK:
                    results = None  # nothing was written
                if results is not None:
                    replies[index] = results[: len(parts[index])]
        if failed := [index for index in participants if index not in replies]:
            # Keys that were only read are as they should be; scripts' keys stay locked.
            left = [key for key in keys if not key[2] or self._table.owner(*key[:2]) in failed]
            self._mark_in_doubt(lock, parts, left, failed[0])
            self._keep_lock(lock, name, leader, participants, list(links.values()))
            raise incomplete_write(links[failed[0]])
        self._had.update(parts.keys())
        self.delete_soon(leader, own_names.DECIDED + name)
        return replies

    def own_changes(self, index: int) -> int:
        """Return how often an instance has written or deleted a record."""
        return 2 * (self._had[index] + self._workers.records_of(index))

    def _keys_of(self, parts: Iterable[Part], db: int) -> Iterator[Key]:
        """Return the keys of commands, for a caller that has locked everything."""
        for part in parts:
            where = db
            for words in part:
                if words[0] == b"SELECT":
                    where = int(words[1])
                for access in self._table.parse(words).keys:
                    yield where, access.key, True

    def _mark_in_doubt(
        self, lock: Lock, parts: Mapping[int, Part], keys: list[Key], instance: int
    ) -> None:
        """Release all but these keys; a write that empties databases keeps all."""
        if not any(map(_flushes, parts.values())):
            self._locks.mark_in_doubt(lock, keys, instance)

    async def _run_without_memory(self, index: int, part: Part, db: int, kind: Kind) -> list[bytes]:
        block = oom_blocks.block(part, kind.resp)
        reply = (await self._links.raw(index, [block], db=db, kind=kind))[0]
        return await oom_blocks.results(reply, part, kind.resp) or await exec_results([], reply)

    def _keep_lock(
        self, lock: Lock, name: bytes, leader: int, participants: list[int], links: Iterable[Link]
    ) -> None:
        """Keep the lock until the outcome is known."""
        lock.is_kept = True
        spoilt = (link for link in links if link.is_spoilt)
        lost = [connection_of(link) for link in spoilt]
        self._spawn(self._resolve_and_release(lock, name, leader, participants, lost))

    async def _resolve_and_release(
        self,
        lock: Lock,
        name: bytes,
        leader: int,
        participants: list[int],
        lost: Sequence[ClosedConnection],
    ) -> None:
        try:
            await asyncio.sleep(RETRY)
            await self._drain_and_resolve(name, leader, participants, lost)
        finally:  # also after a bug: a lock that is never released would be a hang
            self._running.discard(name)
            self._locks.release(lock)

    @contextmanager
    def begin(self) -> Iterator[bytes]:
        """Name a write whose outcome the caller resolves; recovery leaves its records alone."""
        name = _core.unique_name()
        self._running.add(name)
        try:
            yield name
        finally:
            self._running.discard(name)

    def resolve_later(
        self, name: bytes, leader: int, participants: list[int], lost: Sequence[ClosedConnection]
    ) -> None:
        """Resolve a write in the background: all participants complete it, or none."""
        self._spawn(self._drain_and_resolve(name, leader, participants, lost))

    async def _drain_and_resolve(
        self, name: bytes, leader: int, participants: list[int], lost: Sequence[ClosedConnection]
    ) -> None:
        await self._drain_all(lost)
        await self._resolve_all(name, leader, participants)

    async def _resolve_all(self, name: bytes, leader: int, participants: list[int]) -> None:
        for index in participants:
            await _retry(partial(self._resolve, index, own_names.PREPARED + name))
        self.delete_soon(
            leader, own_names.DECIDED + name
        )  # this is refused while the disk is full, for instance

    def unsettled(self, letter: _core.Unsettled) -> None:
        """Resolve what a worker has left; its lock, if it has one, is kept until then."""
        self._locks.in_doubt_changed()
        self._spawn(self._resolve_for_worker(letter))

    async def _resolve_for_worker(self, letter: _core.Unsettled) -> None:
        lost = [
            (index, self._links.instance(index).socket, b" name=%s " % lane)
            for index, lane in letter.lanes
        ]
        try:
            await self._drain_all(lost)
            if letter.name:  # else there are no records
                await self._resolve_all(letter.name, letter.first, letter.others)
        finally:
            if letter.token is not None:
                self._locks.release_of_worker(letter.token)

    async def _drain_all(self, lost: Iterable[ClosedConnection]) -> None:
        """Wait until instances have read everything from connections that we have closed."""
        for one in lost:
            await _retry(partial(self.check_drained, one))

    async def check_drained(self, lost: ClosedConnection) -> None:
        """Raise LinkError while an instance may not have read everything from a connection."""
        index, socket, mark = lost
        if self._links.is_gone(index, socket):
            return
        known = await self._links.call(index, b"CLIENT", b"LIST")
        if isinstance(known, hiredis.ReplyError) or mark in known:
            raise LinkError(f"TRYAGAIN instance {index} has not read everything yet")

    async def _resolve(self, index: int, key: bytes) -> None:
        """Complete or drop what an instance has prepared; LinkError if the outcome is not known
        yet.
        """
        async with self._resolving:  # two tasks that resolve the same write would run it twice
            payload = await self._ask(index, b"GET", key)
            if payload is None:
                return
            record = PreparedRecord.decode(payload)
            name = key.removeprefix(own_names.PREPARED)
            if await self._ask(record.leader, b"EXISTS", own_names.DECIDED + name):
                hidden = [b"SELECT", b"%d" % self._records]
                part = [*record.commands, hidden, [b"DEL", key], [b"SELECT", b"%d" % record.db]]
                await pending_writes.run(self._links, index, part, record.db)
                log.warning("instance %d: completed a write to several instances", index)
            else:
                self.delete_soon(index, key)

    async def _ask(self, index: int, *words: bytes) -> Any:
        """Ask about records; LinkError if the answer is an error, for instance LOADING."""
        reply = await self._links.call(index, *words, db=self._records)
        if isinstance(reply, hiredis.ReplyError):
            raise LinkError(f"TRYAGAIN instance {index}: {reply}")
        return reply

    async def recover(self, index: int) -> None:
        """Resolve what an instance that came (back) has prepared, before clients may use it.

        Without the leader the keys stay locked; for a write that empties databases LinkError is
        raised.
        """
        for key in await self._ask(index, b"KEYS", own_names.PREPARED + b"*"):
            payload = await self._ask(index, b"GET", key)
            if payload is None or self._is_running(key.removeprefix(own_names.PREPARED)):
                continue
            try:
                await self._resolve(index, key)
            except LinkError:
                record = PreparedRecord.decode(payload)
                if _flushes(record.commands):  # it has no keys to lock
                    raise
                self._spawn(self._recover_later(index, key, record))
        for key in await self._ask(index, b"KEYS", own_names.DECIDED + b"*"):
            payload = await self._ask(index, b"GET", key)
            name = key.removeprefix(own_names.DECIDED)
            if payload is not None and not self._is_running(name):
                participants = msgspec.json.decode(payload, type=list[int])
                self._spawn(self._resolve_all(name, index, participants))

    def _is_running(self, name: bytes) -> bool:
        """Whether this process will resolve it: this class, or a worker, which reports if it
        cannot.
        """
        return name in self._running or name.startswith(self._workers.prefix())

    async def _recover_later(self, index: int, key: bytes, record: PreparedRecord) -> None:
        async with self._locks.hold(record.keys, [index], waits_for_in_doubt=True) as lock:
            self._locks.mark_in_doubt(lock, record.keys, record.leader)
            await _retry(partial(self._resolve, index, key))

    def delete_soon(self, index: int, record: bytes) -> None:
        """Delete a record, together with those of the next moment."""
        names = self._done.setdefault(index, [])
        names.append(record)
        if len(names) == 1:
            self._spawn(self._delete_after(index))

    async def _delete_after(self, leader: int, seconds: float = FORGET_AFTER) -> None:
        await asyncio.sleep(seconds)
        await self.delete_records(leader)

    async def delete_records(self, leader: int) -> None:
        """Delete all records that can be deleted; the others are tried again later."""
        done, take, decided = self._done, self._workers.take_finished, own_names.DECIDED
        async with self._deleting[leader]:  # deletions that are under way are waited for
            while names := [*done.pop(leader, []), *(decided + name for name in take(leader))]:
                try:
                    await pending_writes.delete(self._links, leader, self._records, *names)
                except LinkError:
                    done.setdefault(leader, []).extend(names)
                    if leader not in self._late:
                        self._late.add(leader)
                        self._spawn(self._delete_late(leader))
                    raise

    async def _delete_late(self, leader: int) -> None:
        """Try again until the instance is back and the records are deleted."""
        try:
            await _retry(partial(self._delete_after, leader, FORGET_AGAIN))
        finally:
            self._late.discard(leader)

    def finished(self) -> None:
        """Delete the records of what workers have committed."""
        self._spawn(self.delete_all_records())

    async def delete_all_records(self) -> None:
        """Delete all records now, so that they are not among the counted changes."""
        jobs = [self.delete_records(leader) for leader in self._links.all_instances()]
        await asyncio.gather(*jobs, return_exceptions=True)

    def _spawn(self, job: Coroutine[None, None, None]) -> None:
        self._tasks.start(job, "a record of a write to several instances")


def connection_of(link: Link) -> ClosedConnection:
    """Return how one of our connections can be recognised after it was closed."""
    return link.index, link.socket, b"id=%d " % link.id


def _flushes(part: Part) -> bool:
    """Whether a part changes whole databases."""
    return any(words[0].lower().decode() in SWEEPS for words in part)


async def _retry(job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await job()
        except LinkError:
            await asyncio.sleep(RETRY)
