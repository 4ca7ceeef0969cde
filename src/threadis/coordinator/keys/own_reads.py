"""Our own reads of keys: INFO does not count them, and no event reports them.

Before a command over several instances, and for what has changed after it, we read values, types
and lifetimes. A server counts each as a hit or a miss, and publishes misses (class ``m``); no
client has asked for them. So they are counted here, to be subtracted, and sent between marks
(``keyspace_events``).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from threadis import resp
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import Kind, Links, Words
from threadis.coordinator.keys.keyspace_events import Events

# Our questions, and their replies, other than null, for a key that does not exist.
ABSENT: Final[dict[bytes, bytes]] = {
    b"DUMP": b"",
    b"LLEN": b":0\r\n",
    b"LRANGE": b"*0\r\n",
    b"OBJECT": b"",
    b"PEXPIRETIME": b":-2\r\n",
    b"SCARD": b":0\r\n",
    b"SISMEMBER": b"",  # asked only of keys that exist
    b"SORT": b"*0\r\n",
    b"TYPE": b"+none\r\n",
    b"XINFO": b"",
}
NO_KEY: Final = b"-ERR no such key"
# Errors that come after a key was looked up.
FAULTS: Final = (b"-WRONGTYPE", b"-ERR An LFU")

# Sends commands to an instance, and returns their replies.
Send = Callable[[int, list[Words]], Awaitable[list[bytes]]]


@dataclass(slots=True)
class ReadCounts:
    """Hits and misses."""

    hits: int = 0
    misses: int = 0


class OwnReads:
    """Sends such questions, and counts them."""

    def __init__(self, links: Links, events: Events) -> None:
        self._links, self._events = links, events
        self._counts: dict[
            int, tuple[str, ReadCounts]
        ] = {}  # by instance: of the process at a socket

    def of(self, index: int) -> ReadCounts:
        """Return an instance's counts, to be changed."""
        socket = self._links.instance(index).socket
        known = self._counts.get(index)
        if known is None or known[0] != socket:  # a new process counts anew
            known = self._counts[index] = (socket, ReadCounts())
        return known[1]

    def total(self) -> ReadCounts:
        """Return the sum over all instances."""
        found = [self.of(index) for index in self._links.ready()]
        return ReadCounts(sum(one.hits for one in found), sum(one.misses for one in found))

    def reset(self) -> None:
        """Set them to zero, as the instances do."""
        self._counts.clear()

    def marks(self) -> tuple[list[Words], list[Words]]:
        """Return the marks before and behind questions in a caller's block."""
        return self._events.around_misses()

    def note_trial(self, index: int, name: str, keys: int, reply: bytes) -> None:
        """Count a client's command that was run where there is no key, to get its errors.

        A server looks at each stream of XREAD twice; of XREADGROUP only at the first.
        """
        if name == "xread" and not reply.startswith(b"-"):
            self.of(index).misses += 2 * keys
        elif reply.startswith(b"-NOGROUP"):
            self.of(index).misses += 1

    async def ask(
        self, index: int, questions: Sequence[Words], *, db: int, kind: Kind | None = None
    ) -> list[bytes]:
        """Ask an instance; the replies."""
        send = partial(self._links.raw, db=db, kind=kind or Kind())
        return await self.ask_by(send, index, questions)

    async def ask_by(self, send: Send, index: int, questions: Sequence[Words]) -> list[bytes]:
        """Ask through the caller's ``send``."""
        before, after = self.marks()
        if before:
            block: list[Words] = [[b"MULTI"], *before, *questions, *after, [b"EXEC"]]
            *_, reply = await send(index, block)
            is_refused = not reply.startswith(b"*")
            inside = (
                [reply] * (len(questions) + 2) if is_refused else await long_replies.elements(reply)
            )
            replies = inside[1:-1]
        else:
            replies = await send(index, list(questions))
        await self.note(index, questions, replies)
        return replies

    async def note(self, index: int, questions: Sequence[Words], replies: Sequence[bytes]) -> None:
        """Count questions; other commands are ignored."""
        reads = self.of(index)
        found = await offload(len(questions), _count, questions, replies)
        reads.hits += found.hits
        reads.misses += found.misses


def _count(questions: Sequence[Words], replies: Sequence[bytes]) -> ReadCounts:
    """Return what a server has counted."""
    reads = ReadCounts()
    for words, reply in zip(questions, replies, strict=False):
        name = words[0]
        if name == b"EXISTS" and reply.startswith(b":"):
            found = int(reply[1:-2])
            reads.hits += found
            reads.misses += len(words) - 1 - found
        elif (absent := ABSENT.get(name)) is not None:
            if reply == absent or reply in resp.NULLS or reply.startswith(NO_KEY):
                reads.misses += 1
            elif not reply.startswith(b"-") or reply.startswith(FAULTS):
                reads.hits += 1
    return reads
