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
from threadis.coordinator.links import (
    READ_MOST,
    BusyError,
    Link,
    UnknownOutcomeError,
    Words,
    entire,
)
from threadis.coordinator.offload import cut

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
        lines = [await stream.line() for _ in range(len(inside) + 1)]
        said = await stream.line()
        if not said.startswith(b"*"):
            refusal = next((line for line in lines if line.startswith(b"-")), said)
            if refusal.startswith(b"-OOM ") and not only_as_block:
                return await _ask_without_memory(link, script, before, back, after)
            return Answers(refusal, [], [], refusal)
        if said != b"*%d\r\n" % len(inside):
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
    first = await stream.replies(before)
    text = await stream.until(b"$32\r\n" + nonce + END)
    end = len(text) - back * len(resp.OK)
    if end < 0 or text[end:] != back * resp.OK:
        raise ValueError("not ours any more")
    reply = _one(await cut(text, 0, end) if back else text)
    last = await stream.replies(after)
    stream.end()
    return Answers(reply, first, last)


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
    if _core.is_reply(text):
        return text
    if text.startswith(b"-"):
        return text.strip().replace(b"\r", b" ").replace(b"\n", b" ") + END
    return MALFORMED


class _Stream:
    """What comes on a connection: replies, and what may be anything."""

    def __init__(self, link: Link, patience: float | None = None) -> None:
        self._reader = link.reader
        self._patience = patience
        self._replies = _core.Replies()

    async def _more(self) -> None:
        # Outside a block the nonce is refused, too, while another script runs too long.
        is_busy = self._patience is not None and self._replies.has(b"-BUSY ")
        try:
            async with asyncio.timeout(self._patience if is_busy else None):
                data = await self._reader.read(READ_MOST)
        except TimeoutError:
            raise BusyError from None
        if not data:
            raise EOFError("the instance hung up")
        self._replies.feed(data)

    async def until(self, mark: bytes) -> bytes:
        """Wait for a mark and go behind it; what comes before it."""
        while (found := self._replies.until(mark)) is None:
            await self._more()
        return await entire(found)

    async def line(self) -> bytes:
        """Wait for one line, its end included."""
        return await self.until(END) + END

    async def replies(self, count: int) -> list[bytes]:
        """Wait for some replies; ValueError if these are none."""
        found: list[bytes] = []
        while len(found) < count:
            reply = self._replies.next()
            if reply is None:
                await self._more()
            else:
                found.append(await entire(reply))
        return found

    def end(self) -> None:
        """Raise ValueError if there is more."""
        if len(self._replies):
            raise ValueError("more replies than commands")
