"""Commands on the whole keyspace: FLUSHALL, FLUSHDB, SWAPDB. Alone with all keys."""

import asyncio
from collections.abc import Set
from typing import Final

from threadis import _core, resp
from threadis.coordinator.links import LinkError, Links, UnknownOutcomeError
from threadis.coordinator.locks import Locks
from threadis.coordinator.tracking import Tracking

RETRY: Final = 0.1  # seconds before an instance that was lost in the middle is asked again
PATIENCE: Final = 30.0  # seconds in which it comes back, if it ever does


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
            await asyncio.gather(*(self._follow(i, command) for i in range(1, self._links.count)))
            return first

    async def _follow(self, index: int, command: _core.Command) -> None:
        """Do what another has done; one that is lost in the middle does it once it is back.

        UnknownOutcomeError if it is lost for long, or may have done what is not to be done twice.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        is_repeatable = command.args[0].lower() != b"swapdb"
        while True:
            try:
                await self._links.raw(index, [command.args], db=command.info.db, wait=None)
            except LinkError as error:
                is_unknown = isinstance(error, UnknownOutcomeError) and not is_repeatable
                if is_unknown or loop.time() > deadline:
                    what = "was lost in the middle of the command; others have run it"
                    raise UnknownOutcomeError(f"ERR instance {index} {what}") from error
                await asyncio.sleep(RETRY)
            else:
                return

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
