"""What scripts read: MONITOR shows each command that a script runs.

Asked only for scripts of clients that track, for as long as these run.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from threadis.coordinator.links import Link, LinkError, Links, Words
from threadis.coordinator.table import Table

LINE: Final = re.compile(rb"\+[0-9.]+ \[\d+ lua\] (.*)\r\n", re.DOTALL)
WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Reads:
    """The keys that scripts have read, once it is over."""

    keys: list[bytes] = field(default_factory=list)


class Witness:
    """Watches all instances."""

    def __init__(self, links: Links, table: Table) -> None:
        self._links, self._table = links, table

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[Reads]:
        """Find out what is read meanwhile by scripts, whoever's they are."""
        reads = Reads()
        async with contextlib.AsyncExitStack() as stack:
            watching = [
                await stack.enter_async_context(self._monitor(index))
                for index in self._links.ready()
            ]
            yield reads
            found = await asyncio.gather(*map(self._lines, watching))
        for words in (words for part in found for words in part):
            reads.keys += self._read_by(words)

    @contextlib.asynccontextmanager
    async def _monitor(self, index: int) -> AsyncIterator[Link]:
        link = await self._links.connect(index)
        try:
            await link.ask([b"MONITOR"])
            yield link
        finally:
            link.writer.close()

    async def _lines(self, link: Link) -> list[Words]:
        """The commands of scripts up to now."""
        mark = os.urandom(16).hex().encode()
        await self._links.raw(link.index, [[b"ECHO", mark]])
        found: list[Words] = []
        try:
            while mark not in (line := await link.next_reply()):
                if match := LINE.fullmatch(line):
                    found.append([_plain(word) for word in WORD.findall(match[1])])
        except (OSError, EOFError, ValueError) as error:
            raise LinkError(f"ERR instance {link.index} was lost while a script ran") from error
        return found

    def _read_by(self, words: Words) -> list[bytes]:
        with contextlib.suppress(KeyError):
            parsed = self._table.parse(words)
            if parsed.row.name in self._table.reading:
                return [access.key for access in parsed.keys]
        return []


def _plain(quoted: bytes) -> bytes:
    """A word without the escapes of MONITOR."""
    return quoted.decode("unicode_escape").encode("latin-1")
