"""The coordinator's own connections to the instances: one call at a time on each, RESP2.

A connection that saw a timeout, an error of the transport or a cancelled call is closed, never
used again: its next reply would answer the wrong question.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import hiredis

from threadis import control

TIMEOUT = 5.0  # seconds; a call that takes longer is told as such
KEEP = 4  # idle connections to each instance


class LinkError(Exception):
    """An instance could not be asked, or did not answer; the text says which."""


@dataclass(slots=True)
class _Link:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parser: hiredis.Reader
    db: int = 0


class Links:
    """Calls to instances. Knows where each one listens."""

    def __init__(self, count: int, password: bytes) -> None:
        self.count = count
        self._password = password
        self._instances: list[control.Instance | None] = [None] * count
        self._idle: list[list[_Link]] = [[] for _ in range(count)]

    def update(self, instance: control.Instance) -> None:
        """Take note of where an instance is; forget connections to where it was."""
        self._instances[instance.index] = instance
        for link in self._idle[instance.index]:
            link.writer.close()
        self._idle[instance.index].clear()

    def instance(self, index: int) -> control.Instance:
        """Return what is known of an instance."""
        known = self._instances[index]
        if known is None:
            raise LinkError(f"instance {index} is not known yet")
        return known

    def ready(self) -> list[int]:
        """Return the instances that can be asked."""
        return [
            index
            for index, known in enumerate(self._instances)
            if known and known.state is control.State.READY
        ]

    async def call(self, index: int, *args: bytes, db: int = 0) -> Any:
        """Ask one instance; errors come back as hiredis.ReplyError values.

        Raises LinkError if there is no answer.
        """
        known = self.instance(index)
        if known.state not in (control.State.READY, control.State.LOADING):
            raise LinkError(f"TRYAGAIN instance {index} is {known.state}; the command was not run")
        idle = self._idle[index]
        link = idle.pop() if idle else await self._connect(known)
        try:
            async with asyncio.timeout(TIMEOUT):
                if link.db != db:
                    await _ask(link, b"SELECT", str(db).encode())
                    link.db = db
                reply = await _ask(link, *args)
        except BaseException as error:
            link.writer.close()
            if isinstance(error, (OSError, TimeoutError, EOFError, hiredis.ProtocolError)):
                what = "did not answer; the command may or may not have run"
                raise LinkError(f"ERR instance {index} {what}") from error
            raise
        # The instance may have moved meanwhile; then this connection leads nowhere.
        if known.socket == self.instance(index).socket and len(idle) < KEEP:
            idle.append(link)
        else:
            link.writer.close()
        return reply

    async def _connect(self, known: control.Instance) -> _Link:
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(known.socket)
        except (OSError, TimeoutError) as error:
            raise LinkError(
                f"TRYAGAIN instance {known.index} cannot be reached; the command was not run"
            ) from error
        link = _Link(reader, writer, hiredis.Reader())
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            async with asyncio.timeout(TIMEOUT):
                if await _ask(link, b"AUTH", self._password) == b"OK":
                    return link
        writer.close()
        raise LinkError(f"TRYAGAIN instance {known.index} refused us; the command was not run")


async def _ask(link: _Link, *args: bytes) -> Any:
    link.writer.write(hiredis.pack_command(args))  # type: ignore[arg-type]  # its stub: one only
    while (reply := link.parser.gets()) is False:
        data = await link.reader.read(65536)
        if not data:
            raise EOFError("the instance hung up")
        link.parser.feed(data)
    return reply
