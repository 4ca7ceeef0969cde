"""Knows instances near their ``maxmemory``: there, commands between MULTI and EXEC are tried first.

A server without memory refuses a command when it is queued, and then EXEC. We queue commands
ourselves and ask no instance; that is equivalent while there is memory.
"""

import asyncio
import contextlib
import logging
from typing import Final

from threadis import _core
from threadis.coordinator.base.command_table import CommandTable
from threadis.coordinator.instances.links import Kind, LinkError, Links, Words, value
from threadis.coordinator.instances.maxmemory import Maxmemory

log = logging.getLogger(__name__)

NEAR: Final = 0.9  # of maxmemory in use: asked first
PERIOD: Final = 1.0  # seconds between looks, while memory is tight


class NearMaxmemory:
    """Knows whether an instance is near its limit."""

    def __init__(
        self, core: _core.Proxy, links: Links, table: CommandTable, maxmemory: Maxmemory
    ) -> None:
        self._core, self._links, self._table = core, links, table
        self._maxmemory = maxmemory

    async def check(self) -> None:
        """Check how much memory is left; the limit may have changed."""
        self._core.set_limit("tight", int(await self._any_near()))

    async def watch(self) -> None:
        """Divide the memory again and again, and check while an instance refuses commands."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self._maxmemory.redistribute()
                if self._core.is_tight():
                    await self.check()
            except LinkError:
                pass  # reported elsewhere
            except Exception:
                log.exception("maxmemory could not be divided; trying again")

    async def _any_near(self) -> bool:
        for index in self._links.ready():
            with contextlib.suppress(LinkError):
                info = value((await self._links.raw(index, [[b"INFO", b"memory"]]))[0])
                if isinstance(info, bytes) and _is_near(info):  # else it is busy with a script
                    return True
        return False

    async def refusal_when_queued(self, question: _core.Command) -> bytes | None:
        """Return the error if a command may not be queued now; None if it may."""
        return await self._refusal(question.args, question.info.db, Kind(resp=question.info.resp))

    async def refusal_when_run(self, question: _core.Command) -> bytes | None:
        """Return the error if a command may not run now; None if it may."""
        return await self.refusal_of(question.args, question.info.db, Kind(resp=question.info.resp))

    async def refusal_of(self, args: Words, db: int, kind: Kind) -> bytes | None:
        """Return the error if a command on several instances may not run now; None if it may.

        One server refuses it even if there turns out to be nothing to do.
        """
        is_asked = self._core.is_tight() and self._table.parse(args).row.needs_memory
        return await self._refusal(args, db, kind) if is_asked else None

    async def _refusal(self, args: Words, db: int, kind: Kind) -> bytes | None:
        block: list[Words] = [[b"MULTI"], args, [b"DISCARD"]]
        owners = self._table.owners(self._table.parse(args), db)
        for index in sorted(owners or {self._links.any_ready()}):
            reply = (await self._links.raw(index, block, db=db, kind=kind))[1]
            if reply.startswith(b"-OOM"):
                return reply
        return None


def _is_near(info: bytes) -> bool:
    """Whether INFO memory says that little is left."""
    fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    limit = int(fields[b"maxmemory"])
    return limit > 0 and int(fields[b"used_memory"]) > NEAR * limit
