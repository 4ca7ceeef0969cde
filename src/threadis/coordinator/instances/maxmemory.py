"""Divides ``maxmemory`` among the instances: each gets what it uses, and an equal part of the rest.

So no instance meets its limit before all memory is used, although keys are not spread evenly, and
together they never use more than the total. Our own connections to them do not count: clients'
buffers are in the proxy (``maxmemory-clients``).
"""

import asyncio
import contextlib
from typing import Final

import hiredis

from threadis.coordinator.instances.links import LinkError, Links

CLOSE: Final = 0.01  # of an equal part: smaller differences are ignored


class Maxmemory:
    """Divides ``maxmemory`` again and again."""

    def __init__(self, links: Links, total: int) -> None:
        self._links = links
        self._total = total  # bytes; 0: no limit
        self._given: dict[int, int] = {}
        self._one = asyncio.Lock()  # one at a time, so that the newest total is set last

    async def set(self, total: int) -> None:
        """Change the total."""
        async with self._one:
            self._total = total
            self._given.clear()
            await self._redistribute()

    async def redistribute(self) -> None:
        """Set each instance's share, as far as they can be asked."""
        async with self._one:
            await self._redistribute()

    async def _redistribute(self) -> None:
        if not self._total:
            for index in self._links.ready():
                if self._given.get(index) != 0:
                    await self._give(index, 0)
            return
        used, ours = await self._used()
        if len(used) < self._links.count:
            return  # an instance that restarts has the share that it had, or an equal part
        shares = divide(self._total, used)
        shares = {index: shares[index] + ours[index] for index in shares}
        near = CLOSE * self._total / self._links.count
        # Shares that shrink come first, so that the sum never exceeds the total.
        for index in sorted(shares, key=lambda one: shares[one] - self._given.get(one, 0)):
            if abs(shares[index] - self._given.get(index, 0)) > near or not self._given.get(index):
                await self._give(index, shares[index])

    async def _used(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return the bytes that count at each instance, and those of our connections."""
        found, ours = {}, {}
        for index in self._links.ready():
            info = await self._links.call(index, b"INFO", b"memory")
            if isinstance(info, hiredis.ReplyError):
                continue  # a script runs there
            fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
            not_counted = int(fields.get(b"mem_not_counted_for_evict", 0))
            ours[index] = int(fields.get(b"mem_clients_normal", 0))
            found[index] = int(fields[b"used_memory"]) - not_counted - ours[index]
        return found, ours

    async def _give(self, index: int, share: int) -> None:
        with contextlib.suppress(LinkError):
            reply = await self._links.call(index, b"CONFIG", b"SET", b"maxmemory", b"%d" % share)
            if not isinstance(reply, hiredis.ReplyError):
                self._given[index] = share

    def instance_restarted(self, index: int) -> None:
        """Note that an instance was started again."""
        self._given.pop(index, None)


def divide(total: int, used: dict[int, int]) -> dict[int, int]:
    """Divide a total (bytes) by what is used; if more is used, reduce all in proportion."""
    rest = total - sum(used.values())
    if rest >= 0:
        return {index: amount + rest // len(used) for index, amount in used.items()}
    return {index: max(1, amount * total // sum(used.values())) for index, amount in used.items()}
