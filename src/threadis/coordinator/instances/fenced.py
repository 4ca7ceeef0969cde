"""Runs scripts whose replies may be forged: a script's text or error may contain the end of its
reply.

So it runs in one block, followed by a nonce that it cannot guess::

    MULTI, our commands, the script, our commands, ECHO <nonce>, our commands, EXEC

Replies before the script are ours and known by their positions. All from there to the nonce is the
script's, whatever it looks like. What follows is again known by its position. A server that refuses
one command of the block runs none.

A server without memory accepts no block. There the same commands run without one, once all that
comes before the script was answered without error.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from threadis import _core, resp
from threadis.coordinator.base.offload import LARGE, slice_bytes
from threadis.coordinator.instances import exec_replies
from threadis.coordinator.instances.links import (
    READ_MOST,
    BusyError,
    Link,
    UnknownOutcomeError,
    Words,
    joined,
)

MALFORMED = resp.error("ERR threadis: the script's reply was malformed")
END = b"\r\n"
BUSY = b"-BUSY "
PATIENCE = 0.5  # seconds for what has been sent together with a script that is not run


@dataclass(frozen=True, slots=True)
class Fence:
    """A script and what surrounds it; ``back`` follows at once, and is answered with OK."""

    script: Words
    before: Sequence[Words] = ()
    back: Sequence[Words] = ()
    after: Sequence[Words] = ()


@dataclass(slots=True, eq=False)  # not frozen: that takes four times as long, and there may be many
class FencedReplies:
    """The replies, each to its own command; ``refusal`` if the server has run nothing."""

    reply: bytes
    before: Sequence[bytes] = ()
    after: Sequence[bytes] = ()
    refusal: bytes | None = None


NOT_RUN: Final = FencedReplies(b"")


@dataclass(slots=True)
class Script:
    """A script as a part of a larger block."""

    fence: Fence
    answers: FencedReplies = field(init=False, default=NOT_RUN)


class FencedBlock:
    """Commands and fenced scripts that run as one transaction."""

    def __init__(self, pieces: Iterable[Words | Fence]) -> None:
        self.commands: list[Words] = []
        # How many ordinary commands come next, or a script's fence and its nonce.
        self._pieces: list[int | tuple[Fence, bytes]] = []
        for piece in pieces:
            if isinstance(piece, Fence):
                nonce = os.urandom(16).hex().encode()
                behind = [*piece.back, [b"ECHO", nonce], *piece.after]
                self.commands += [*piece.before, piece.script, *behind]
                self._pieces.append((piece, nonce))
            else:
                self.commands.append(piece)
                last = self._pieces[-1] if self._pieces else None
                if isinstance(last, int):
                    self._pieces[-1] = last + 1
                else:
                    self._pieces.append(1)

    def send(self, link: Link) -> None:
        """Send the block; its replies must be read next."""
        link.send([b"MULTI"], *self.commands, [b"EXEC"])

    async def receive(self, link: Link, *, is_queued: bool = False) -> list[FencedReplies]:
        """Wait, without a time limit, for the replies of each part; one entry only if it was
        refused.

        ``is_queued``: only the reply to EXEC is still to come. Raises UnknownOutcomeError, and
        spoils the connection, if the replies cannot be understood.
        """
        stream = _Stream(link)
        try:
            count = 0 if is_queued else len(self.commands) + 1
            lines = await stream.replies(count)
            said = await stream.line()
            if not said.startswith(b"*"):
                # For instance, the memory was full only at EXEC.
                said = said.replace(exec_replies.REASON, b"-", 1)
                refusal = next((line for line in lines if line.startswith(b"-")), said)
                return [FencedReplies(refusal, refusal=refusal)]
            if said != b"*%d\r\n" % len(self.commands):
                raise ValueError("not the reply to EXEC")
            found: list[FencedReplies] = []
            for piece in self._pieces:
                if isinstance(piece, int):
                    for begin in range(0, piece, LARGE):
                        if begin:
                            await asyncio.sleep(0)  # others have their turn
                        found += map(FencedReplies, await stream.replies(min(piece - begin, LARGE)))
                else:
                    fence, nonce = piece
                    before = await stream.replies(len(fence.before))
                    reply = await stream.fenced(nonce, len(fence.back))
                    found.append(
                        FencedReplies(reply, before, await stream.replies(len(fence.after)))
                    )
            stream.end()
        except BaseException as error:
            raise _lost(link, error) from error
        return found


async def ask(link: Link, fence: Fence, *, only_as_block: bool = False) -> FencedReplies:
    """Run one script; as ``FencedBlock.receive``."""
    block = FencedBlock([fence])
    block.send(link)
    answers = (await block.receive(link))[0]
    if (answers.refusal or b"").startswith(b"-OOM ") and not only_as_block:
        try:
            return await _ask_without_memory(link, fence)
        except BaseException as error:
            raise _lost(link, error) from error
    return answers


async def _ask_without_memory(link: Link, fence: Fence) -> FencedReplies:
    """Run one script without MULTI and EXEC."""
    first = await link.ask(*fence.before)
    refusal = next((reply for reply in first if reply.startswith(b"-")), None)
    if refusal is not None:
        return FencedReplies(refusal, refusal=refusal)
    nonce = os.urandom(16).hex().encode()
    link.send(fence.script, *fence.back, [b"ECHO", nonce], *fence.after)
    stream = _Stream(link, PATIENCE)
    reply = await stream.fenced(nonce, len(fence.back))
    last = await stream.replies(len(fence.after))
    stream.end()
    return FencedReplies(reply, first, last)


def _lost(link: Link, error: BaseException) -> BaseException:
    link.is_spoilt = True
    if isinstance(error, (OSError, EOFError, ValueError)):
        return UnknownOutcomeError(
            f"ERR instance {link.index} was lost; the command may or may not have run"
        )
    return error


def _one(text: bytes) -> bytes:
    """Return a script's output as one reply; join an error of several lines."""
    if text[:1] in (b"-", b"+") and text.find(END) == len(text) - 2:
        return text
    if _core.is_reply(text):
        return text
    if text.startswith(b"-"):
        return text.strip().replace(b"\r", b" ").replace(b"\n", b" ") + END
    return MALFORMED


class _Stream:
    """What arrives on a connection: replies, and script output of any form."""

    def __init__(self, link: Link, patience: float | None = None) -> None:
        self._reader = link.reader
        self._patience = patience
        self._replies = _core.Replies()

    async def _more(self) -> None:
        # Outside a block the nonce is refused, too, while another script runs too long.
        is_busy = self._patience is not None and self._replies.has(BUSY)
        try:
            async with asyncio.timeout(self._patience if is_busy else None) as limit:
                data = await self._reader.read(READ_MOST)
        except TimeoutError:
            if not limit.expired():  # the reader was told to give up
                raise
            await self.until(BUSY)
            raise BusyError((BUSY[1:] + await self.until(END)).decode(errors="replace")) from None
        if not data:
            raise EOFError("the instance hung up")
        self._replies.feed(data)

    async def until(self, mark: bytes) -> bytes:
        """Wait for a mark; return what comes before it."""
        while (found := self._replies.until(mark)) is None:
            await self._more()
        return await joined(found)

    async def fenced(self, nonce: bytes, back: int) -> bytes:
        """Wait for a script's output, up to its nonce."""
        text = await self.until(b"$32\r\n" + nonce + END)
        end = len(text) - back * len(resp.OK)
        if end < 0 or text[end:] != back * resp.OK:
            raise ValueError("not ours any more")
        return _one(await slice_bytes(text, 0, end) if back else text)

    async def line(self) -> bytes:
        """Wait for one line, including its end."""
        return await self.until(END) + END

    async def replies(self, count: int) -> list[bytes]:
        """Wait for some replies; ValueError if the data is no reply."""
        found: list[bytes] = []
        while len(found) < count:
            reply = self._replies.next()
            if reply is None:
                await self._more()
            else:
                found.append(await joined(reply))
                more = self._replies.take(min(count - len(found), LARGE))
                found += [await joined(one) for one in more]
                if len(more) == LARGE:
                    await asyncio.sleep(0)  # others have their turn
        return found

    def end(self) -> None:
        """Raise ValueError if more has arrived."""
        if len(self._replies):
            raise ValueError("more replies than commands")
