"""Invalidation feeds: a connection to each instance that reports every changed key.

They are open while a client tracks. The core reads them; other messages come here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from threadis import _core
from threadis.coordinator.instances.links import LinkError, Links, Words
from threadis.coordinator.instances.packed import pack
from threadis.coordinator.instances.tasks import Tasks

log = logging.getLogger(__name__)

RETRY: Final = 0.05  # seconds before a lost connection is made anew
LISTEN: Final = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"]


@dataclass(slots=True)
class InvalidationFeed:
    """The feed of an instance."""

    fd: int
    pongs: list[asyncio.Future[None]] = field(default_factory=list)


class InvalidationFeeds:
    """Opens the feeds while they are needed.

    ``flushed`` is called when an instance reports that all its keys are gone.
    """

    def __init__(
        self,
        links: Links,
        trackers: _core.Trackers,
        is_needed: Callable[[], bool],
        flushed: Callable[[], None],
    ) -> None:
        self._links, self._trackers = links, trackers
        self._is_needed, self._flushed = is_needed, flushed
        self._feeds: dict[int, InvalidationFeed] = {}
        self._connecting = asyncio.Lock()
        self._tasks = Tasks()

    async def renew(self, index: int) -> None:
        """Open an instance's feed, if that is needed and not done."""
        async with self._connecting:
            if not self._is_needed() or index in self._feeds:
                return
            loop = asyncio.get_running_loop()
            sock = await self._links.open_socket(index)
            hello: list[Words] = [[b"HELLO", b"3", *self._links.login()], LISTEN]
            try:
                await loop.sock_sendall(sock, pack(*hello))
            except OSError as error:
                sock.close()
                raise LinkError(f"TRYAGAIN instance {index} cannot be reached") from error
            feed = self._feeds[index] = InvalidationFeed(sock.detach())
            self._trackers.listen(index, feed.fd)
            loop.add_reader(feed.fd, self._trackers.hear)
        await self._drain(index)
        if index not in self._feeds:
            raise LinkError(f"TRYAGAIN instance {index} does not tell of its keys")

    async def drain(self) -> None:
        """Wait until all instances have reported earlier changes."""
        await asyncio.gather(*map(self._drain, list(self._feeds)))

    async def _drain(self, index: int) -> None:
        feed = self._feeds.get(index)
        if feed is None:
            return
        if index not in self._links.ready():
            self._lose(index)
            return
        pong = asyncio.get_running_loop().create_future()
        feed.pongs.append(pong)
        if not self._trackers.ping(index):
            self._stop(index)
        await pong

    def lost(self, index: int) -> None:
        """Note that an instance does not answer any more: nothing waits for it."""
        feed = self._feeds.get(index)
        if feed and feed.pongs:
            self._lose(index)

    def heard(self, letter: _core.Heard) -> None:
        """Handle messages other than names of keys."""
        feed = self._feeds.get(letter.instance)
        if feed is None:
            return
        if letter.what == "pong":
            if feed.pongs:
                _resolve(feed.pongs.pop(0))
        elif letter.what == "everything":
            self._flushed()
        else:
            log.warning("instance %d: its invalidation feed was lost", letter.instance)
            self._lose(letter.instance)

    def stop(self) -> None:
        """Close all feeds."""
        for index in list(self._feeds):
            self._stop(index)

    def _lose(self, index: int) -> None:
        self._stop(index)
        self._tasks.start(self._listen_again(index), f"listening again to instance {index}")

    def _stop(self, index: int) -> None:
        """Close an instance's feed."""
        feed = self._feeds.pop(index)
        asyncio.get_running_loop().remove_reader(feed.fd)
        self._trackers.hush(index)
        for pong in feed.pongs:
            _resolve(pong)

    async def _listen_again(self, index: int) -> None:
        """Open a lost feed again; meanwhile everything may have changed."""
        while index in self._links.ready() and index not in self._feeds and self._is_needed():
            try:
                await self.renew(index)
            except LinkError:
                await asyncio.sleep(RETRY)
            except Exception:
                log.exception(
                    "instance %d: its invalidation feed could not be opened; trying again", index
                )
                await asyncio.sleep(RETRY)
        self._trackers.invalidate_all()


def _resolve(pong: asyncio.Future[None]) -> None:
    if not pong.done():
        pong.set_result(None)
