"""One instance's subscriptions on behalf of all clients.

They bring what the instance itself publishes (scripts, transactions, keyspace events, modules). The
core reads the connection and delivers messages; here it is decided what is subscribed to.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Final

from threadis import _core, control
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.packed import pack
from threadis.coordinator.instances.tasks import Tasks

log = logging.getLogger(__name__)

# By kind, as the workers number them: channels, patterns, sharded channels.
SUBSCRIBE: Final = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")
UNSUBSCRIBE: Final = (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE")
KINDS: Final = range(3)
PATTERN: Final = 1


class BusyError(LinkError):
    """A script runs too long there; the connection is still usable."""


RETRY = 0.05  # seconds between attempts to reach an instance that should be there
COMPARED_MOST = 1_000_000  # patterns that an instance compares at once; Redis 7.0 one by one
BATCH = 500  # names in one command: a millisecond of the loop's time


def batch_size(kind: int, made: int) -> int:
    """Return how many names to send at once to an instance that has so many already."""
    return BATCH if kind != PATTERN else max(1, min(BATCH, COMPARED_MOST // (made + 1)))


class InstanceSubscriptions:
    """Keeps an instance subscribed to what is wanted, through restarts and lost connections."""

    def __init__(
        self,
        index: int,
        core: _core.EventFeeds,
        links: Links,
        wanted: Callable[[int], set[bytes]],
    ) -> None:
        self._index, self._core, self._links, self._wanted = index, core, links, wanted
        self._made: list[set[bytes]] = [set() for _ in KINDS]
        self._fd: int | None = None
        self._hears_events = False
        self._tasks = Tasks()
        self._socket = ""  # where the connection leads
        self._is_known = False  # it has answered there
        # What was sent and may be refused: the last PING before it, subscriptions made and ended
        self._unsure: list[tuple[int, int, list[bytes], list[bytes]]] = []
        self._pongs: dict[int, asyncio.Future[None]] = {}
        self._last_ping = 0
        self._lock = asyncio.Lock()  # one attempt to connect at a time

    def count(self) -> int:
        """Return the number of subscriptions."""
        return sum(map(len, self._made))

    def is_in_use(self) -> bool:
        """Whether clients' commands reach the instance, or will in a moment."""
        return self._links.instance(self._index).state is control.State.READY

    async def subscribe(self, kind: int = 0, names: Iterable[bytes] = ()) -> None:
        """Return once the instance is subscribed to these names, and, after a reconnect, to all
        that is wanted; or once it is not in use.
        """
        while self.is_in_use():
            try:
                await self._subscribe(kind, names)
            except BusyError:
                await asyncio.sleep(RETRY)
            except (LinkError, OSError) as error:
                log.info("subscriptions of instance %d: %s", self._index, error)
                await asyncio.sleep(RETRY)
            else:
                return

    async def drain(self) -> None:
        """Return once all that the instance has published before is on its way to subscribers."""
        if self._fd is not None:
            try:
                await self._ping()
            except LinkError as error:
                log.info("subscriptions of instance %d: %s", self._index, error)

    def unsubscribe(self, kind: int, names: list[bytes]) -> None:
        """End subscriptions that are not wanted any more."""
        gone = [name for name in names if name in self._made[kind]]
        if gone and self._fd is not None:
            self._made[kind].difference_update(gone)
            self._unsure.append((self._last_ping, kind, [], gone))
            self._send(pack([UNSUBSCRIBE[kind], *gone]))

    async def _subscribe(self, kind: int, names: Iterable[bytes]) -> None:
        if not names and not any(map(self._wanted, KINDS)):
            return
        async with self._lock:
            if self._fd is None or not self._is_here():
                await self._connect()
        if self._fd is None:
            raise LinkError("the connection was lost")
        await self._write(self._fd, kind, list(names))
        await self._ping()

    async def _ping(self) -> None:
        """Wait for a PONG, which follows all earlier confirmations and messages."""
        self._last_ping += 1
        number = self._last_ping
        pong = self._pongs[number] = asyncio.get_running_loop().create_future()
        self._send(pack([b"PING", b"%d" % number]))
        try:
            await pong
        finally:
            self._pongs.pop(number, None)

    async def _write(self, fd: int, kind: int, names: list[bytes]) -> None:
        """Subscribe to names, a batch at a time, so that other clients do not wait for all of them.

        With the first name that may match keyspace events, we subscribe to all of these ourselves.
        """
        at = 0
        while at < len(names):
            if self._fd != fd:
                raise LinkError("the connection was lost")
            made = self._made[kind]
            most = batch_size(kind, len(made))
            batch = dict.fromkeys(names[at : at + most])
            at += most
            if missing := [name for name in batch if name not in made]:
                made.update(missing)
                self._unsure.append((self._last_ping, kind, missing, []))
                self._send(pack([SUBSCRIBE[kind], *missing]))
            concerns = self._core.concerns_events
            if not self._hears_events and any(concerns(kind, name) for name in missing):
                self._hears_events = True
                self._send(pack([SUBSCRIBE[PATTERN], self._core.events()]))
            # An instance compares each pattern with all it has: others come in between.
            await (self._ping() if kind == PATTERN and at < len(names) else asyncio.sleep(0))
        if self._fd != fd:
            raise LinkError("the connection was lost")

    def _send(self, command: bytes) -> None:
        if self._fd is not None and not self._core.send(self._index, command):
            asyncio.get_running_loop().add_writer(self._fd, self._send_rest, self._fd)

    def _send_rest(self, fd: int) -> None:
        if self._core.send(self._index, b""):
            asyncio.get_running_loop().remove_writer(fd)

    def _is_here(self) -> bool:
        """Whether the connection leads to the instance's present process."""
        return self._socket == self._links.instance(self._index).socket

    async def _connect(self) -> None:
        self._lose()
        link = await self._links.connect(self._index)
        try:
            self._fd = os.dup(link.writer.get_extra_info("socket").fileno())
        finally:
            link.writer.transport.abort()  # closes its own descriptor only
        self._socket = link.socket
        self._is_known = False
        self._core.open(self._index, self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._core.hear, self._index)
        self._send(pack([SUBSCRIBE[PATTERN], self._core.marks()]))
        for kind in KINDS:
            await self._write(self._fd, kind, list(self._wanted(kind)))

    def receive(self, letter: _core.Said) -> None:
        """Handle a PONG, BUSY, or the loss of the connection."""
        if letter.is_busy and self._is_known:
            self._refused()
        elif letter.pong is None:
            log.warning("subscriptions of instance %d: the connection was lost", self._index)
            self._lose()
            self._tasks.start(self._revive(), f"subscriptions of instance {self._index}")
        else:
            self._is_known = True
            self._unsure = [one for one in self._unsure if one[0] >= letter.pong]
            if (pong := self._pongs.get(letter.pong)) and not pong.done():
                pong.set_result(None)

    def _refused(self) -> None:
        """A script runs too long there: what was sent last must be sent again after it.

        What is published meanwhile, by the script, is received.
        """
        for _, kind, made, ended in self._unsure:
            self._made[kind].difference_update(made)
            self._made[kind].update(ended)
        if any(self._unsure):
            self._hears_events = False  # to be on the safe side
            self._tasks.start(self._revive(), f"subscriptions of instance {self._index}")
        self._unsure = []
        self._fail(BusyError("a script runs too long"))

    async def _revive(self) -> None:
        await asyncio.sleep(RETRY)  # for instance, a script keeps it busy
        await self.subscribe()
        if self._fd is not None:
            for kind in KINDS:
                await self._write(self._fd, kind, list(self._wanted(kind)))
                self.unsubscribe(kind, list(self._made[kind] - self._wanted(kind)))

    def _lose(self) -> None:
        """Drop the connection; waiting callers try again."""
        if self._fd is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            self._core.close(self._index)
        self._fd, self._hears_events = None, False
        self._made = [set() for _ in KINDS]
        self._unsure = []
        self._fail(LinkError("the connection was lost"))

    def _fail(self, error: LinkError) -> None:
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(error)
