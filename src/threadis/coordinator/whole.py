"""Commands on the whole keyspace: FLUSHALL, FLUSHDB, SWAPDB. Alone with all keys."""

import asyncio
from collections.abc import Set

from threadis import _core, resp
from threadis.coordinator.links import LinkError, Links
from threadis.coordinator.locks import Locks
from threadis.coordinator.tracking import Tracking


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
        self._pinned = pinned
        self._tracking = tracking

    async def run(self, command: _core.Command) -> bytes:
        """Everywhere or, as far as an instance can say so beforehand, nowhere."""
        down = [i for i in self._links.everyone() if i not in self._links.ready()]
        if down:
            raise LinkError(f"TRYAGAIN instance {down[0]} is not ready; the command was not run")
        async with self._locks.hold_everything(command.token), self._tracking.flushing():
            first = (await self._links.raw(0, [command.args], db=command.info.db, wait=None))[0]
            if first.startswith(b"-"):
                return first
            await asyncio.gather(
                *(
                    self._links.raw(index, [command.args], db=command.info.db, wait=None)
                    for index in range(1, self._links.count)
                )
            )
            return first

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
        return await self.run(command)
