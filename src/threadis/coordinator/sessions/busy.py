"""Scripts that run too long: the BUSY errors of all other commands.

A server answers BUSY to all commands while a script has run longer than ``busy-reply-threshold``.
Commands for its instance get that from the instance itself. Commands that wait for the script's
keys, or for a subscription there, get it from us. PING is answered by that instance, so health
checks see it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from threadis import _core
from threadis.coordinator.instances.links import LinkError, Links, value
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.locks import Locks
from threadis.coordinator.sessions.pubsub import Pubsub

NAMES = (b"busy-reply-threshold", b"lua-time-limit")  # of Redis 7 and before
DEFAULT = 5000  # milliseconds
KILLED = b"Script killed by user with SCRIPT KILL"  # or with FUNCTION KILL; in a server's words
FOREVER = 2**62
AGAIN = 0.01  # seconds


class BusyScripts:
    """Watches scripts."""

    def __init__(
        self,
        core: _core.Proxy,
        links: Links,
        locks: Locks,
        pubsub: Pubsub,
        workers: _core.KnownScripts,
    ) -> None:
        self._core = core
        self._workers = workers
        self._links = links
        self._locks = locks
        self._pubsub = pubsub
        self._threshold: int | None = None  # milliseconds; None: ask again
        self._running: list[int] = []  # instances with a script over the threshold
        self._tasks = Tasks()
        self._kills = self._killing = (
            0  # SCRIPT KILL: how many were sent; how many are not answered
        )

    def threshold_changed(self) -> None:
        """CONFIG SET may have changed the threshold."""
        self._threshold = None
        self._workers.set_limit(0)

    def overdue(self, letter: _core.Overdue) -> None:
        """A script that a worker runs takes too long, or has ended."""
        if letter.is_so:
            self._running.append(letter.instance)
        elif letter.instance in self._running:
            self._running.remove(letter.instance)
        self._tell()

    @contextlib.contextmanager
    def killing(self) -> Iterator[None]:
        """Note that SCRIPT KILL or FUNCTION KILL is on its way."""
        self._kills += 1
        self._killing += 1
        try:
            yield
        finally:
            self._killing -= 1

    @contextlib.asynccontextmanager
    async def watch(
        self, index: int, around: float = 0.0
    ) -> AsyncIterator[Callable[[bytes], bool]]:
        """Watch one script at an instance; ``around``: seconds that the rest of its block may take.

        Yields a function that tells from the reply whether the script was killed: only if a kill
        was sent meanwhile, because a script could make up the text.
        """
        before = self._kills - self._killing
        limit = await self._limit()
        loop = asyncio.get_running_loop()
        is_over = False

        def over() -> None:
            nonlocal is_over
            is_over = True
            self._running.append(index)
            self._tell()

        timer = loop.call_later(limit / 1000 + around, over) if limit > 0 else None
        try:
            yield lambda reply: reply.startswith(b"-") and KILLED in reply and self._kills > before
        finally:
            if timer:
                timer.cancel()
            if is_over:
                self._running.remove(index)
                self._tell()

    async def refusal(self) -> bytes | None:
        """Return the BUSY error for commands of a transaction while a script runs too long."""
        for index in self._running:
            reply = (await self._links.raw(index, [[b"PING"]]))[0]
            if reply.startswith(b"-BUSY"):
                return reply
        return None

    def _tell(self) -> None:
        if self._running:
            self._tasks.start(
                self._read_busy_reply(self._running[-1]), "what is said while a script runs"
            )
        else:
            self._announce(None, "")

    async def _read_busy_reply(self, index: int) -> None:
        """Read the instance's BUSY error, once it has noticed the script, and announce it."""
        while self._running and self._running[-1] == index:
            try:
                reply = (await self._links.raw(index, [[b"PING"]]))[0]
            except LinkError:
                reply = b""
            if reply.startswith(b"-BUSY ") and index in self._running:
                self._announce(index, reply[1:-2].decode(errors="replace"))
                return
            await asyncio.sleep(AGAIN)

    def _announce(self, index: int | None, words: str) -> None:
        self._core.set_busy(index, words)
        self._locks.set_busy(words)
        self._pubsub.set_busy(bool(words))

    async def _limit(self) -> int:
        if self._threshold is not None:
            return self._threshold
        self._threshold = threshold = DEFAULT
        with contextlib.suppress(LinkError):
            index = self._links.any_ready()
            reply = value((await self._links.raw(index, [[b"CONFIG", b"GET", *NAMES]]))[0])
            if isinstance(reply, list) and len(reply) > 1:
                threshold = int(reply[1])
        if self._threshold is not None:  # otherwise it was changed meanwhile
            self._threshold = threshold
            self._workers.set_limit(threshold if threshold > 0 else FOREVER)
        return threshold
