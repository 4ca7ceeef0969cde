"""Commands on the whole keyspace: FLUSHALL, FLUSHDB, SWAPDB. Alone with all keys."""

import asyncio
from collections.abc import Set
from typing import Final

from threadis import _core, ours, resp
from threadis.coordinator import scarcity
from threadis.coordinator.links import LinkError, Links, UnknownOutcomeError, Words
from threadis.coordinator.locks import Locks
from threadis.coordinator.tracking import Tracking

RETRY: Final = 0.1  # seconds before an instance that was lost in the middle is asked again
PATIENCE: Final = 30.0  # seconds in which it comes back, if it ever does
KEPT: Final = 600  # seconds for which an instance knows that it has swapped


class Whole:
    """Runs a command on every instance while nobody else does anything."""

    def __init__(
        self,
        links: Links,
        locks: Locks,
        databases: int,
        pinned: Set[int],
        tracking: Tracking,
    ) -> None:
        self._links = links
        self._locks = locks
        self._databases = databases
        self._hidden = ours.records(databases)
        self._pinned = pinned
        self._tracking = tracking

    async def run(self, command: _core.Command) -> bytes:
        """Everywhere or, as far as an instance can say so beforehand, nowhere."""
        return await self._everywhere(command, command.args)

    async def _everywhere(
        self, command: _core.Command, words: Words, mark: bytes | None = None
    ) -> bytes:
        down = [i for i in self._links.everyone() if i not in self._links.ready()]
        if down:
            raise LinkError(f"TRYAGAIN instance {down[0]} is not ready; the command was not run")
        db = self._hidden if mark else command.info.db
        async with self._locks.hold_everything(command.token), self._tracking.flushing():
            first, *others = self._links.everyone()
            reply = await self._at(first, words, db, mark)
            if not reply.startswith(b"-"):
                await asyncio.gather(
                    *(self._at(i, words, db, mark, has_begun=True) for i in others)
                )
            return reply

    async def _at(
        self, index: int, words: Words, db: int, mark: bytes | None, *, has_begun: bool = False
    ) -> bytes:
        """Run at an instance; at one that is lost in the middle once it is back.

        What must not run twice leaves a ``mark``. UnknownOutcomeError if it is lost for long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            try:
                if has_begun and mark and await self._has(index, mark, db):
                    return resp.OK
                reply = (await self._links.raw(index, [words], db=db, wait=None))[0]
            except LinkError as error:
                has_begun = has_begun or isinstance(error, UnknownOutcomeError)
                if not has_begun:
                    raise
                problem = str(error)
            else:
                if not (has_begun and reply.startswith(b"-")):
                    return reply
                problem = reply[1:].strip().decode(errors="replace")
            if loop.time() > deadline:
                raise UnknownOutcomeError(
                    f"ERR instance {index} was lost in the middle of the command, and others may "
                    f"have run it: {problem}"
                )
            await asyncio.sleep(RETRY)

    async def _has(self, index: int, mark: bytes, db: int) -> bool:
        return bool(await self._links.call(index, b"EXISTS", mark, db=db) == 1)

    async def swap(self, command: _core.Command) -> bytes:
        """SWAPDB; the hidden databases are out of range, pinned ones stay where they are."""
        indices = [int(word) for word in command.args[1:3] if word.isdigit()]
        if len(indices) == 2 and any(self._databases <= one < 2**31 for one in indices):
            return resp.error("ERR DB index is out of range")
        pinned = self._pinned & set(indices)
        if pinned:
            return resp.error(
                f"ERR threadis: database {min(pinned)} is pinned to an instance; SWAPDB would have "
                "to carry all its keys to others, and back"
            )
        if len(command.args) != 3 or len(indices) != 2:
            return await self.run(command)  # an instance says what is wrong
        mark = ours.SWAPPED + _core.unique_name()
        words = [command.args, [b"SET", mark, b"", b"EX", b"%d" % KEPT]]
        reply = await self._everywhere(command, scarcity.block(words, 2), mark)
        found = scarcity.results(reply, words)
        return found[0] if found else reply
