"""Watches what scripts do: MONITOR shows each command that a script runs.

It is used for scripts of clients that track, and for scripts that touch more on copies than was
lent; only while these run.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from threadis import own_names
from threadis.coordinator.base.command_table import CommandTable
from threadis.coordinator.instances.links import READ_MOST, Link, LinkError, Links, Words

LINE: Final = re.compile(rb"\+[0-9.]+ \[(\d+) lua\] (.*)\r\n", re.DOTALL)
TURN: Final = 1000  # lines that are read before others have their turn
WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class ScriptReads:
    """The keys that scripts have read, complete when they have ended."""

    keys: list[bytes] = field(default_factory=list)
    last: set[bytes] = field(default_factory=set)  # after their own last write to it
    written: set[bytes] = field(default_factory=set)  # after their last read
    is_whole: bool = True  # False: an instance was lost before it had shown all


class ScriptMonitor:
    """Watches all instances."""

    def __init__(self, links: Links, table: CommandTable) -> None:
        self._links, self._table = links, table
        # One at a time: each gets everything that happens there.
        self._looks: dict[int, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def watch_reads(self) -> AsyncIterator[ScriptReads]:
        """Collect what scripts read meanwhile, of any client."""
        reads = ScriptReads()
        async with contextlib.AsyncExitStack() as stack:
            watching = [
                await stack.enter_async_context(self._monitor(index))
                for index in self._links.ready()
            ]
            yield reads
            found = await asyncio.gather(*map(self._commands, watching))
        reads.is_whole = None not in found
        for words in (words for part in found if part for words in part):
            self._note(reads, words)

    @contextlib.asynccontextmanager
    async def _monitor(self, index: int) -> AsyncIterator[Link]:
        link = await self._links.connect(index)
        try:
            await link.ask([b"MONITOR"])
            yield link
        finally:
            link.writer.close()

    @contextlib.asynccontextmanager
    async def watch_run(self, index: int) -> AsyncIterator["MonitoredRun"]:
        """Watch the one script that runs between two marks at an instance."""
        async with self._looks.setdefault(index, asyncio.Lock()), self._monitor(index) as link:
            yield MonitoredRun(link)

    async def _commands(self, link: Link) -> list[Words] | None:
        """Return what scripts have run; None if the instance is lost, which undoes nothing."""
        try:
            return await self._lines(link)
        except LinkError:
            return None

    async def _lines(self, link: Link) -> list[Words]:
        """Return the commands of clients' scripts up to now."""
        mark = os.urandom(16).hex().encode()
        await self._links.raw(link.index, [[b"ECHO", mark]])
        found: list[Words] = []
        is_ours = False
        try:
            while mark not in (line := await link.next_reply()):
                match = LINE.fullmatch(line)
                if match is None:
                    is_ours = own_names.SCRIPT_MARK in line  # what it runs follows
                elif not is_ours:
                    found.append(_words(match[2]))
        except (OSError, EOFError, ValueError) as error:
            raise LinkError(f"ERR instance {link.index} was lost while a script ran") from error
        return found

    def _note(self, reads: ScriptReads, words: Words) -> None:
        with contextlib.suppress(KeyError):
            parsed = self._table.parse(words)
            keys = [access.key for access in parsed.keys]
            if parsed.row.name in self._table.reading:
                reads.keys += keys
                reads.last.update(keys)
                reads.written.clear()
            elif parsed.row.writes:
                reads.last.difference_update(keys)
                reads.written.update(keys)


class MonitoredRun:
    """What an instance shows while we watch scripts."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._begin, self._end = os.urandom(16).hex().encode(), os.urandom(16).hex().encode()
        self.before: Words = [b"ECHO", self._begin]  # to be sent right before each
        self.after: Words = [b"ECHO", self._end]

    async def commands(self) -> list[list[tuple[int, Words]]]:
        """Return what each script has run, and in which databases."""
        data, has_begun = bytearray(), False
        try:
            while (end := data.find(self._end, max(0, len(data) - 2 * READ_MOST))) < 0:
                more = await self._link.reader.read(READ_MOST)
                if not more:
                    raise EOFError("the instance hung up")
                data += more
                if not has_begun:  # what comes before belongs to others
                    begin = data.find(self._begin)
                    has_begun = begin >= 0
                    del data[: begin if has_begun else -len(self._begin)]
        except (OSError, EOFError) as error:
            raise LinkError(f"ERR instance {self._link.index} was lost") from error
        found: list[dict[tuple[bytes, bytes], None]] = []
        for number, line in enumerate(bytes(data[:end]).splitlines(keepends=True)):
            if match := LINE.fullmatch(line):
                found[-1][match[1], match[2]] = None  # the same again and again counts once
            elif self._begin in line:
                found.append({})
            if number % TURN == 0:
                await asyncio.sleep(0)
        ran: list[list[tuple[int, Words]]] = []
        for one in found:
            ran.append([])
            for number, (db, line) in enumerate(one, 1):
                ran[-1].append((int(db), _words(line)))
                if number % TURN == 0:
                    await asyncio.sleep(0)
        return ran


def _words(line: bytes) -> Words:
    """Parse a command as MONITOR writes it."""
    if b"\\" not in line:
        return line[1:-1].split(b'" "')
    return [_plain(word) for word in WORD.findall(line)]


def _plain(quoted: bytes) -> bytes:
    """Remove MONITOR's escapes from an argument."""
    return quoted.decode("unicode_escape").encode("latin-1")
