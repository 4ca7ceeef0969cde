"""Asking what can forge replies: a script's text or error may hold the end of its own reply.

So it runs in one block, with something behind it that nobody can guess::

    MULTI, what is ours, the script, what is ours, ECHO <nonce>, what is ours, EXEC

All before the script is ours and told by its position; all from there to the nonce is the
script's, whatever it looks like; what comes behind is told by its position again. A server that
refuses one command of the block runs none.

A server without memory takes no block: there the same goes without, once all that is ours before
the script was answered well.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from threadis import _core, resp
from threadis.coordinator.links import READ_MOST, BusyError, Link, UnknownOutcomeError, Words

MALFORMED = resp.error("ERR threadis: the script's reply was malformed")
END = b"\r\n"
PATIENCE = 0.5  # seconds for what has been sent together with a script that is not run


@dataclass(frozen=True, slots=True)
class Answers:
    """The replies, each to its own command; ``refusal`` if the server has run nothing."""

    reply: bytes
    before: list[bytes]
    after: list[bytes]
    refusal: bytes | None = None


async def ask(
    link: Link,
    script: Words,
    *,
    before: Sequence[Words] = (),
    back: Sequence[Words] = (),
    after: Sequence[Words] = (),
    only_as_block: bool = False,
) -> Answers:
    """Run a script; ``back`` comes right behind it and is answered with OK.

    Waits as long as it takes. Raises UnknownOutcomeError, and spoils the connection, if the
    replies are not ours to understand.
    """
    nonce = os.urandom(16).hex().encode()
    behind = [*back, [b"ECHO", nonce], *after]
    inside = [*before, script, *behind]
    link.send([b"MULTI"], *inside, [b"EXEC"])
    stream = _Stream(link)
    try:
        lines = await stream.lines(len(inside) + 1)
        if await stream.peek() != b"*":
            said = await stream.line()
            refusal = next((line for line in lines if line.startswith(b"-")), said)
            if refusal.startswith(b"-OOM ") and not only_as_block:
                return await _ask_without_memory(link, script, before, back, after)
            return Answers(refusal, [], [], refusal)
        if await stream.line() != b"*%d\r\n" % len(inside):
            raise ValueError("not the reply to EXEC")
        return await _read(stream, nonce, len(before), len(back), len(after))
    except BaseException as error:
        raise _lost(link, error) from error


async def _ask_without_memory(
    link: Link,
    script: Words,
    before: Sequence[Words],
    back: Sequence[Words],
    after: Sequence[Words],
) -> Answers:
    """The same, not as a block."""
    first = await link.ask(*before)
    refusal = next((reply for reply in first if reply.startswith(b"-")), None)
    if refusal is not None:
        return Answers(refusal, [], [], refusal)
    nonce = os.urandom(16).hex().encode()
    link.send(script, *back, [b"ECHO", nonce], *after)
    found = await _read(_Stream(link, PATIENCE), nonce, 0, len(back), len(after))
    return Answers(found.reply, first, found.after)


async def _read(stream: "_Stream", nonce: bytes, before: int, back: int, after: int) -> Answers:
    start = stream.at
    found = await stream.find(b"$32\r\n" + nonce + END)
    ours = _Cut(bytes(stream.data[start:found]))
    first = ours.cut(before)
    text = ours.rest()
    for _ in range(back):
        if not text.endswith(resp.OK):
            raise ValueError("not ours any more")
        text = text.removesuffix(resp.OK)
    return Answers(_one(text), first, await stream.replies(after))


def _lost(link: Link, error: BaseException) -> BaseException:
    link.is_spoilt = True
    if isinstance(error, (OSError, EOFError, ValueError)):
        return UnknownOutcomeError(
            f"ERR instance {link.index} was lost; the command may or may not have run"
        )
    return error


def _one(text: bytes) -> bytes:
    """One reply of what a script has written; an error of several lines in one line."""
    if text[:1] in (b"-", b"+") and text.find(END) == len(text) - 2:
        return text
    cut = _Cut(text)
    try:
        if len(cut.cut(1)[0]) == len(text):
            return text
    except ValueError:
        pass
    if text.startswith(b"-"):
        return text.strip().replace(b"\r", b" ").replace(b"\n", b" ") + END
    return MALFORMED


class _Cut:
    """Cuts replies off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._replies = _core.Replies()
        self._replies.feed(data)

    def cut(self, count: int) -> list[bytes]:
        """Take some; ValueError if there are fewer."""
        found = []
        for _ in range(count):
            reply = self._replies.next()
            if reply is None:
                raise ValueError("too few replies")
            self._at += len(reply)
            found.append(reply)
        return found

    def rest(self) -> bytes:
        """Return what was not taken."""
        return self._data[self._at :]


class _Stream:
    """What comes on a connection, as bytes."""

    def __init__(self, link: Link, patience: float | None = None) -> None:
        self._reader = link.reader
        self._patience = patience
        self.data = bytearray()
        self.at = 0

    async def _more(self) -> None:
        # Outside a block the nonce is refused, too, while another script runs too long.
        is_busy = self._patience is not None and b"-BUSY " in self.data
        try:
            async with asyncio.timeout(self._patience if is_busy else None):
                data = await self._reader.read(READ_MOST)
        except TimeoutError:
            raise BusyError from None
        if not data:
            raise EOFError("the instance hung up")
        self.data += data

    async def peek(self) -> bytes:
        """Look at the next byte."""
        while len(self.data) <= self.at:
            await self._more()
        return bytes(self.data[self.at : self.at + 1])

    async def find(self, mark: bytes) -> int:
        """Wait for a mark and go behind it; where it begins."""
        begin = self.at
        while (found := self.data.find(mark, begin)) < 0:
            begin = max(self.at, len(self.data) - len(mark) + 1)
            await self._more()
        self.at = found + len(mark)
        return found

    async def line(self) -> bytes:
        """Wait for one line, its end included."""
        start = self.at
        await self.find(END)
        return bytes(self.data[start : self.at])

    async def lines(self, count: int) -> list[bytes]:
        """Wait for some lines."""
        while self.data.count(END, self.at) < count:
            await self._more()
        found = [line + END for line in bytes(self.data[self.at :]).split(END, count)[:count]]
        self.at += sum(map(len, found))
        return found

    async def replies(self, count: int) -> list[bytes]:
        """Wait for the last replies; ValueError if there is more."""
        replies = _core.Replies()
        replies.feed(bytes(self.data[self.at :]))
        found: list[bytes] = []
        length = len(self.data) - self.at
        while len(found) < count:
            reply = replies.next()
            if reply is None:
                data = await self._reader.read(READ_MOST)
                if not data:
                    raise EOFError("the instance hung up")
                length += len(data)
                replies.feed(data)
            else:
                found.append(reply)
        if sum(map(len, found)) != length:
            raise ValueError("more replies than commands")
        return found
