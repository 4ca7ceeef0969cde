"""Attempts: commands of waiting clients, run where they cannot block.

Between MULTI and EXEC no server blocks, so errors, replies and events are the server's own.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from threadis import _core, resp
from threadis.catalog.blocking import STREAM
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.base.offload import LARGE
from threadis.coordinator.instances import long_replies, lookup
from threadis.coordinator.instances.links import Kind, LinkError, UnknownOutcomeError, Words, value
from threadis.coordinator.keys import stream_read
from threadis.coordinator.keys.key_watch import KeyWatch, Place
from threadis.coordinator.keys.locks import Lock
from threadis.coordinator.keys.waiters import BlockingRequest, Waiter
from threadis.coordinator.multikey import oom_blocks
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.sessions.departures import LEFT, has_hung_up

AT_ONCE: Final = 8  # blocks that an instance is asked for at the same time
# What Redis 7.0 says to XREADGROUP; later servers run the command again.
NO_STREAM: Final = b"-UNBLOCKED the stream key no longer exists\r\n"
NO_GROUP: Final = b"-NOGROUP the consumer group this client was blocked on no longer exists\r\n"
WRONG_TYPE: Final = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


@dataclass(frozen=True, slots=True)
class PlaceLock:
    """A lock, and the places it covers."""

    lock: Lock
    places: set[Place]


class BlockResult(NamedTuple):
    """The result of one block."""

    first: bytes  # the reply to what was run before the attempts
    last: bytes  # the reply to the last attempt
    left: bytes  # the type of the key after that


class Attempts:
    """Tries waiting clients' commands, and ends the waits of those that get something."""

    def __init__(
        self,
        execution: Execution,
        acl_checks: AclChecks,
        key_watch: Callable[[Place], KeyWatch],
        finish: Callable[[Waiter, bytes], None],
        served: Callable[[_core.Command, bytes], None],
        *,
        runs_again: bool,
    ) -> None:
        self._execution, self._acl_checks, self._links = execution, acl_checks, execution.links
        self._own_reads = execution.own_reads
        self._key_watch, self._finish, self._served = key_watch, finish, served
        self._runs_again = runs_again  # the server runs a blocked command again: 7.2 and later
        self._turns = [asyncio.Semaphore(AT_ONCE) for _ in self._links.all_instances()]

    async def try_one(self, waiter: Waiter, key: bytes, held: PlaceLock) -> bytes:
        """Try one client's command; return its reply, if that ends the wait."""
        async with waiter.turn:  # another of its keys may be served just now
            if waiter.is_over:
                return LEFT
            if has_hung_up(waiter.command):
                self._finish(waiter, LEFT)
                return LEFT
            # A server that runs a command again checks the permissions again.
            if self._runs_again and (refusal := await self._acl_checks.refusal(waiter.command)):
                if not await self._is_woken(waiter, key):
                    return resp.null_array(waiter.kind.resp)
                self._finish(waiter, refusal)
                return refusal
            target = waiter.request.target
            changed = [key] if target is None else [key, target]
            # A client that tracks the key gets the invalidation after its reply.
            async with self._execution.tracking.changing(waiter.command, changed):
                request = waiter.request
                if not self._runs_again or request.target is not None:
                    return await self._attempt(waiter, [key], held)
                if request.streams:
                    covered = {one for db, one in held.places if db == waiter.db} | {key}
                    keys = [key, *(one for one in covered if one != key and one in request.keys)]
                    return await self._attempt(waiter, keys, held)
                return await self._rerun(waiter, key, held)

    def pick_batch(
        self, line: Iterable[Waiter], most: int, key: bytes, held: PlaceLock, protocol: int
    ) -> list[Waiter]:
        """Return the first clients of a queue that can be tried in one block; remove those that
        hung up.
        """
        found: list[Waiter] = []
        gone: list[Waiter] = []
        for waiter in line:
            if len(found) == most or not self.is_plain(waiter, key, held, protocol):
                break
            (gone if has_hung_up(waiter.command) else found).append(waiter)
        for waiter in gone:
            self._finish(waiter, LEFT)
        return found

    def is_plain(self, waiter: Waiter, key: bytes, held: PlaceLock, protocol: int) -> bool:
        """Whether running the client's command for this key is all there is to do."""
        request = waiter.request
        if waiter.turn.locked() or request.target is not None or self._execution.tracking.is_on:
            return False
        if len(request.keys) >= LARGE:
            return False
        if waiter.command.info.resp != protocol:
            return False
        if not self._runs_again:
            return True
        if self._acl_checks.is_restricted(waiter.command):
            return False
        if request.streams:
            return len(request.keys) == 1
        return not any(self._maybe_existing(waiter, request.keys[: request.keys.index(key)], held))

    async def _existing_before(self, waiter: Waiter, key: bytes, held: PlaceLock) -> list[bytes]:
        """Return keys before this one that may exist by now; a rerun begins with them."""
        keys = waiter.request.keys
        found: list[bytes] = []
        before = keys[: keys.index(key)]
        for start in range(0, len(before), LARGE):
            if start:
                await asyncio.sleep(0)
            found += self._maybe_existing(waiter, before[start : start + LARGE], held)
        if len(found) < LARGE:
            return found
        # They are not watched yet.
        owner = partial(self._execution.table.owner, waiter.db)

        async def ask(index: int, commands: list[Words]) -> list[bytes]:
            return await self.raw(index, commands, waiter.db, Kind())

        return [one async for one in lookup.present(found, owner, ask)]

    def _maybe_existing(
        self, waiter: Waiter, keys: Sequence[bytes], held: PlaceLock
    ) -> Iterator[bytes]:
        for one in dict.fromkeys(keys):
            place = (waiter.db, one)
            if place in held.places or not self._key_watch(place).is_absent(place):
                yield one

    async def try_together(
        self, waiters: Sequence[Waiter], place: Place, first: Words | None = None
    ) -> BlockResult | None:
        """Try several clients' commands in one block, behind another command if there is one.

        None if the block was refused: nothing of it has run.
        """
        db, key = place
        for waiter in waiters:
            await waiter.turn.acquire()  # at once: they are plain
        try:
            type_: Words = [b"TYPE", key]
            tried = [self._words(waiter.request, [key]) for waiter in waiters]
            looks, ends = self._own_reads.marks()
            look = [*looks, type_, *ends]
            asked = [*([first] if first else []), *look, *tried, *look]
            index, kind = self._execution.table.owner(db, key), waiters[0].kind
            exec_ = (await self.raw(index, [[b"MULTI"], *asked, [b"EXEC"]], db, kind))[-1]
            if not exec_.startswith(b"*"):
                return None
            replies = await long_replies.elements(exec_)
            before, behind = replies[: -len(look)], replies[-len(look) :]
            found, is_left = before[bool(first) + len(looks)], behind[len(looks)]
            await self._own_reads.note(index, [type_, type_], [found, is_left])
            for waiter, reply in zip(waiters, before[-len(waiters) :], strict=True):
                self._end(waiter, self._judge(waiter.request, value(found), reply))
            return BlockResult(before[0], before[-1], value(is_left))
        except UnknownOutcomeError as error:
            for waiter in waiters:
                self._end(waiter, resp.error(str(error)))
            if first:
                raise
            return BlockResult(b"", resp.error(str(error)), b"")
        finally:
            for waiter in waiters:
                self._end(waiter, resp.null_array(2))
                waiter.turn.release()

    async def _rerun(self, waiter: Waiter, key: bytes, held: PlaceLock) -> bytes:
        """Try a command as a server does that runs a blocked command again: from its first key on.

        A key that was written together with this one may come before it, and a key before it that
        has another type by now is an error. A key that itself has another type by now wakes no
        client.
        """
        request, before = waiter.request, await self._existing_before(waiter, key, held)
        if before and await self._known_type((waiter.db, key)) != request.type:
            before = []
        for one in before:
            place = (waiter.db, one)
            found = await self._known_type(place)
            if found == request.type and place in held.places:
                reply = await self._attempt(waiter, [one], held)
                if waiter.is_over:
                    return reply
            elif found not in (request.type, b"none", None):
                self._served(waiter.command, WRONG_TYPE)
                self._finish(waiter, WRONG_TYPE)
                return WRONG_TYPE
        return await self._attempt(waiter, [key], held)

    async def _known_type(self, place: Place) -> bytes | None:
        """Ask for a key's type; None if its instance does not answer."""
        try:
            return await self.type(place)
        except LinkError:
            return None

    async def type(self, place: Place) -> bytes:
        """Ask for a key's type."""
        db, key = place
        index = self._execution.table.owner(db, key)
        found = value((await self.ask(index, [[b"TYPE", key]], db))[0])
        return found if isinstance(found, bytes) else b""

    async def ask(self, index: int, questions: list[Words], db: int) -> list[bytes]:
        """Ask an instance questions of our own, which INFO does not count."""
        return await self._own_reads.ask_by(partial(self.raw, db=db, kind=Kind()), index, questions)

    async def raw(self, index: int, commands: list[Words], db: int, kind: Kind) -> list[bytes]:
        """Send commands to an instance; few at the same time, so that ten thousand clients can
        wait.
        """
        async with self._turns[index]:
            return await self._links.raw(index, commands, db=db, kind=kind)

    async def _attempt(self, waiter: Waiter, keys: list[bytes], held: PlaceLock) -> bytes:
        """Try a waiting client's command for some keys; if it finds something, the wait ends."""
        request, owner, key = waiter.request, self._execution.table.owner, keys[0]
        words = self._words(request, keys)
        reply = resp.null_array(waiter.kind.resp)
        try:
            index = owner(waiter.db, key)
            if request.target is not None and owner(waiter.db, request.target) != index:
                if await self.type((waiter.db, key)) == request.type:
                    reply = await self._execution.execute(
                        request.move(), waiter.db, waiter.kind, held.lock.token
                    )
            elif len(keys) > 1:
                if request.needs_key or await self._has_entries(waiter, key):
                    token = held.lock.token
                    reply = await self._execution.execute(words, waiter.db, waiter.kind, token)
            else:
                found, reply = await self.run_nonblocking(index, words, key, waiter.db, waiter.kind)
                if request.streams and reply in resp.NULLS:  # a server does not look again in vain
                    self._own_reads.of(index).hits += 2 * stream_read.count(words)
                reply = self._judge(request, found, reply)
            if waiter.wrong_type_keys and reply not in resp.NULLS and await self._is_faulty(waiter):
                reply = WRONG_TYPE
        except UnknownOutcomeError as error:
            reply = resp.error(str(error))
        finally:
            self._end(waiter, reply)
        return reply

    async def _is_woken(self, waiter: Waiter, key: bytes) -> bool:
        """Whether a server would run the command again after this change of the key."""
        request = waiter.request
        if request.streams and request.needs_key:
            index = self._execution.table.owner(waiter.db, key)
            questions: list[Words] = [[b"XINFO", b"STREAM", key], [b"XINFO", b"GROUPS", key]]
            return request.streams.is_woken(*await self.ask(index, questions, waiter.db))
        if request.streams:
            return await self._has_entries(waiter, key)
        return await self._known_type((waiter.db, key)) == request.type

    async def _has_entries(self, waiter: Waiter, key: bytes) -> bool:
        """Whether this key has entries for an XREAD; else errors of other keys do not matter."""
        words, index = (
            self._words(waiter.request, [key]),
            self._execution.table.owner(waiter.db, key),
        )
        found, reply = await self.run_nonblocking(index, words, key, waiter.db, waiter.kind)
        self._own_reads.of(index).hits += 2 * stream_read.count(words)
        return found == STREAM and reply not in resp.NULLS

    async def _is_faulty(self, waiter: Waiter) -> bool:
        """Whether an XREAD that is rerun finds a key of another type; then it returns nothing."""
        if not self._runs_again:
            return False
        found = {await self._known_type((waiter.db, key)) for key in waiter.wrong_type_keys}
        return not found <= {STREAM, b"none", None}

    def _words(self, request: BlockingRequest, keys: list[bytes]) -> Words:
        """Build the command for some of its keys.

        Servers that run it again ask for a stream as often as it is named; Redis 7.0 once.
        """
        if request.streams and self._runs_again:
            return request.streams.all_of(keys)
        return request.only(keys[0])

    def _judge(self, request: BlockingRequest, found: bytes, reply: bytes) -> bytes:
        """Return the client's reply, by the type of its key and its command's reply."""
        if found != request.type:
            return self._key_is_gone(request, reply)
        if request.needs_key and reply.startswith(b"-NOGROUP") and not self._runs_again:
            return NO_GROUP
        return reply

    def _end(self, waiter: Waiter, reply: bytes) -> None:
        """End a wait if there is a result, or a final reply."""
        if reply not in resp.NULLS:
            self._served(waiter.command, reply)
            self._finish(waiter, reply)
        elif waiter.final_reply is not None:
            self.end_with(waiter, waiter.final_reply)

    def end_with(self, waiter: Waiter, verdict: bytes) -> None:
        """End a wait without a result. Servers that rerun commands log that, older ones do not."""
        if self._runs_again and not waiter.is_over and verdict != LEFT:
            self._served(waiter.command, verdict)
        self._finish(waiter, verdict)

    def _key_is_gone(self, request: BlockingRequest, reply: bytes) -> bytes:
        """Return the reply if the key does not exist, or has another type."""
        if request.needs_key:
            return reply if self._runs_again else NO_STREAM
        return resp.null_array(2)  # it goes on waiting

    async def run_nonblocking(
        self, index: int, words: Words, key: bytes, db: int, kind: Kind
    ) -> tuple[bytes, bytes]:
        """Run a command where it cannot block; return the key's type before it, and the reply."""
        looks, ends = self._own_reads.marks()
        block: list[Words] = [[b"MULTI"], *looks, [b"TYPE", key], *ends, words, [b"EXEC"]]
        replies = await self.raw(index, block, db, kind)
        is_refused = not replies[-1].startswith(b"*") and not self._execution.need_memory([words])
        if is_refused and oom_blocks.can_return([words], kind.resp):
            tried: list[Words] = [[b"TYPE", key], words]
            replies = await self.raw(index, [oom_blocks.block(tried, kind.resp)], db, kind)
            found, reply = await oom_blocks.results(replies[0], tried, kind.resp) or (
                b"+none\r\n",
                replies[0],
            )
            await self._own_reads.note(index, [[b"TYPE"]], [found])
            return value(found), reply
        if not replies[-1].startswith(b"*"):
            return b"", replies[-2] if replies[-2].startswith(b"-") else replies[-1]
        inside = await long_replies.elements(replies[-1])
        await self._own_reads.note(index, [[b"TYPE"]], [inside[len(looks)]])
        return value(inside[len(looks)]), inside[-1]
