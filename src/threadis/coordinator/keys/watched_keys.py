"""The keys that one client watches (WATCH), on connections of its own.

Redis 7.0 compares each new key with all that the connection watches already: 100,000 keys would
block an instance for a minute. So very many keys are spread over some connections, a few at a time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from threadis import resp
from threadis.coordinator.instances.links import Kind, Link, LinkError, Links
from threadis.coordinator.keys.locks import Key

KEYS_MOST = 2000  # keys of a connection before another is opened
LINKS_MOST = 16  # connections to an instance that a client may have
COMPARED_MOST = 1_000_000  # names that an instance compares at once
CLEAN = b"*0\r\n"  # an empty transaction of which no watched key has changed


@dataclass(slots=True)
class _WatchLink:
    """One connection, and how many keys it watches."""

    link: Link
    count: int = 0


class WatchedKeys:
    """The keys that a client watches."""

    def __init__(self, links: Links, kind: Kind) -> None:
        self._links, self.kind = links, kind
        self.keys: dict[tuple[int, bytes], None] = {}  # database, key
        self._lines: dict[int, list[_WatchLink]] = defaultdict(list)  # by instance
        self._stack = AsyncExitStack()

    def only_link(self) -> Link | None:
        """Return the connection that watches all keys, if there is just one."""
        links = self.links()
        return links[0] if len(links) == 1 else None

    def locks(self) -> list[Key]:
        """Return the locks that a caller of ``is_clean`` must hold."""
        return [(db, key, False) for db, key in self.keys]

    async def add(self, index: int, keys: Iterable[bytes], db: int) -> bytes:
        """Watch keys of an instance; return its reply if that is not OK."""
        new = [key for key in dict.fromkeys(keys) if (db, key) not in self.keys]
        while new:
            line = await self._line(index, db)
            room = KEYS_MOST - line.count % KEYS_MOST
            await line.link.select(db)
            for some in slices(new[:room], line.count):
                reply = (await line.link.ask([b"WATCH", *some]))[0]
                if reply != resp.OK:
                    return reply
                line.count += len(some)
                self.keys.update(dict.fromkeys((db, key) for key in some))
            new = new[room:]
        return resp.OK

    async def is_clean(self) -> bool:
        """Ask every connection whether a key has changed; a lost connection counts as changed."""
        for link in self.links():
            try:
                replies = await link.ask([b"MULTI"], [b"EXEC"])
            except LinkError:
                return False
            if replies[1] != CLEAN:
                return False
        return True

    async def end(self) -> None:
        """Watch nothing any more."""
        for link in self.links():
            try:
                await link.ask([b"UNWATCH"])
            except LinkError:
                link.is_spoilt = True
        await self._stack.aclose()

    async def _line(self, index: int, db: int) -> _WatchLink:
        """Find a connection for some more keys."""
        lines = self._lines[index]
        found = min(lines, key=lambda line: line.count, default=None)
        if found is None or (found.count >= KEYS_MOST and len(lines) < LINKS_MOST):
            lease = self._links.lease(index, self.kind, db)
            found = _WatchLink(await self._stack.enter_async_context(lease))
            lines.append(found)
        return found

    def links(self) -> list[Link]:
        """Return all its connections."""
        return [line.link for lines in self._lines.values() for line in lines]


def slices(keys: list[bytes], watched: int) -> Iterator[list[bytes]]:
    """Yield keys to watch at once, so that an instance has time for other clients in between."""
    most = max(1, COMPARED_MOST // (watched + KEYS_MOST))
    for at in range(0, len(keys), most):
        yield keys[at : at + most]
