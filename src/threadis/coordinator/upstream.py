"""One instance's subscriptions for all clients: a connection that hears what the instance itself
publishes (scripts, transactions, keyspace events, modules) and hands it to the workers.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from threadis import _core, control
from threadis.coordinator.links import LinkError, Links, pack
from threadis.coordinator.tasks import Tasks

log = logging.getLogger(__name__)

# By kind, as the workers number them: channels, patterns, sharded channels.
SUBSCRIBE: Final = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")
UNSUBSCRIBE: Final = (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE")
KINDS: Final = range(3)

READ_MOST = 256 * 1024
RETRY = 0.05  # seconds between attempts to reach an instance that should be there
BATCH = 500  # names in one command: a millisecond of the loop's time


class Upstream:
    """Keeps an instance subscribed to what is wanted, through restarts and lost connections."""

    def __init__(
        self,
        index: int,
        core: _core.Proxy,
        links: Links,
        wanted: Callable[[int], set[bytes]],
    ) -> None:
        self._index, self._core, self._links, self._wanted = index, core, links, wanted
        self._made: list[set[bytes]] = [set() for _ in KINDS]
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._tasks = Tasks()
        self._socket = ""  # where the connection leads
        self._pongs: dict[int, asyncio.Future[None]] = {}
        self._last_ping = 0
        self._lock = asyncio.Lock()  # one attempt to connect at a time

    def count(self) -> int:
        """How many subscriptions it has."""
        return sum(map(len, self._made))

    def is_in_use(self) -> bool:
        """Whether the instance is one that clients' commands reach, or will in a moment."""
        return self._links.instance(self._index).state is control.State.READY

    async def ensure(self, kind: int = 0, names: Iterable[bytes] = ()) -> None:
        """Return once the instance is subscribed to these names, and to all that is wanted if it
        had to be reached anew; or once it is not in use.
        """
        while self.is_in_use():
            try:
                await self._subscribe(kind, names)
            except (LinkError, OSError) as error:
                log.info("subscriptions of instance %d: %s", self._index, error)
                await asyncio.sleep(RETRY)
            else:
                return

    def drop(self, kind: int, names: list[bytes]) -> None:
        """End subscriptions that nobody wants any more."""
        gone = [name for name in names if name in self._made[kind]]
        if gone and self._writer:
            self._made[kind].difference_update(gone)
            self._writer.write(pack([UNSUBSCRIBE[kind], *gone]))

    async def _subscribe(self, kind: int, names: Iterable[bytes]) -> None:
        if not names and not any(map(self._wanted, KINDS)):
            return
        async with self._lock:
            if self._writer is None or not self._is_here():
                await self._connect()
        writer = self._writer
        if writer is None:
            raise LinkError("the connection was lost")
        await self._write(writer, kind, list(names))
        # Its answer comes behind the confirmations.
        self._last_ping += 1
        pong = self._pongs[self._last_ping] = asyncio.get_running_loop().create_future()
        writer.write(pack([b"PING", b"%d" % self._last_ping]))
        await pong

    async def _write(self, writer: asyncio.StreamWriter, kind: int, names: list[bytes]) -> None:
        """Subscribe to names, a batch at a time: others do not wait for all of them."""
        for at in range(0, len(names), BATCH):
            if self._writer is not writer:
                raise LinkError("the connection was lost")
            made = self._made[kind]
            missing = [name for name in dict.fromkeys(names[at : at + BATCH]) if name not in made]
            if missing:
                made.update(missing)
                writer.write(pack([SUBSCRIBE[kind], *missing]))
            await asyncio.sleep(0)
        if self._writer is not writer:
            raise LinkError("the connection was lost")

    def _is_here(self) -> bool:
        """Whether the connection leads to the process that the instance is now."""
        return self._socket == self._links.instance(self._index).socket

    async def _connect(self) -> None:
        self._lost()
        link = await self._links.connect(self._index)
        self._socket, self._writer = link.socket, link.writer
        self._reading = self._tasks.start(self._read(link.reader, link.writer), "subscriptions")
        for kind in KINDS:
            await self._write(link.writer, kind, list(self._wanted(kind)))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand messages on, until the connection is lost; then make it anew."""
        feed = _core.Feed(self._core)
        try:
            while data := await reader.read(READ_MOST):
                self._heard(feed.feed(data))
        except Exception as error:  # a script keeps it busy, say
            is_known = isinstance(error, (OSError, ValueError))
            log.warning(
                "subscriptions of instance %d: %s", self._index, error, exc_info=not is_known
            )
            await asyncio.sleep(RETRY)
        if self._writer is writer:
            self._reading = None
            self._lost()
            self._tasks.start(self.ensure(), f"subscriptions of instance {self._index}")

    def _heard(self, others: Iterable[bytes]) -> None:
        for reply in others:
            if reply.startswith((b"$", b"*2")):  # a pong, outside and inside of subscriptions
                pong = self._pongs.pop(int(reply.split(b"\r\n")[-2]), None)
                if pong and not pong.done():
                    pong.set_result(None)
            elif reply.startswith(b"-"):
                raise ValueError(reply.decode(errors="replace").strip())

    def _lost(self) -> None:
        """Forget the connection; who waits for it tries again."""
        if self._reading:
            self._reading.cancel()
        if self._writer:
            self._writer.close()
        self._reading = self._writer = None
        self._made = [set() for _ in KINDS]
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(LinkError("the connection was lost"))
        self._pongs.clear()
