"""What we read of keys for ourselves: INFO does not count it, and no event tells of it.

Before a command over several instances runs, and for what has changed behind it, we ask for values,
types and lifetimes. A server counts each as a hit or a miss, and tells of what it has not found
(class ``m``): the client has asked for none of this. So it is counted here, to be taken away again,
and asked within marks (``events``).
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

# What we ask with, and what else than null it says of a key that is not there.
ABSENT: Final[dict[bytes, bytes]] = {
    b"DUMP": b"",
    b"LLEN": b":0\r\n",
    b"LRANGE": b"*0\r\n",
    b"OBJECT": b"",
    b"PEXPIRETIME": b":-2\r\n",
    b"SCARD": b":0\r\n",
    b"SISMEMBER": b"",  # asked only of what is there
    b"SORT": b"*0\r\n",
    b"TYPE": b"+none\r\n",
    b"XINFO": b"",
}
NO_KEY: Final = b"-ERR no such key"
# After it has looked a key up, a server may still find fault with it.
FAULTS: Final = (b"-WRONGTYPE", b"-ERR An LFU")

# Sends commands to an instance, and returns their replies.
Send = Callable[[int, list[Words]], Awaitable[list[bytes]]]


@dataclass(slots=True)
class ReadCounts:
    """How many found something, and how many did not."""

    hits: int = 0
    misses: int = 0


class OwnReads:
    """Asks, and counts."""

    def __init__(self, links: Links, events: Events) -> None:
        self._links, self._events = links, events
        self._counts: dict[
            int, tuple[str, ReadCounts]
        ] = {}  # by instance: of the process at a socket

    def of(self, index: int) -> ReadCounts:
        """What an instance has counted that no client has read; to be changed."""
        socket = self._links.instance(index).socket
        known = self._counts.get(index)
        if known is None or known[0] != socket:  # a new process counts anew
            known = self._counts[index] = (socket, ReadCounts())
        return known[1]

    def total(self) -> ReadCounts:
        """All instances' together."""
        found = [self.of(index) for index in self._links.ready()]
        return ReadCounts(sum(one.hits for one in found), sum(one.misses for one in found))

    def reset(self) -> None:
        """Begin anew, as the instances do."""
        self._counts.clear()

    def marks(self) -> tuple[list[Words], list[Words]]:
        """What stands before and behind questions in a block of the caller's."""
        return self._events.around_misses()

    def note_trial(self, index: int, name: str, keys: int, reply: bytes) -> None:
        """Count a client's command that was run where there is no key, to see its faults.

        A server looks at each stream of XREAD twice, and gives up XREADGROUP at the first.
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
        """The same, in the caller's way."""
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
        """Count what was asked; other commands than questions of ours do not count."""
        reads = self.of(index)
        found = await offload(len(questions), _count, questions, replies)
        reads.hits += found.hits
        reads.misses += found.misses


def _count(questions: Sequence[Words], replies: Sequence[bytes]) -> ReadCounts:
    """What a server has counted."""
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
