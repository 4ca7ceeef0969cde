"""Watches keys that clients wait for, and reports when they change.

Each instance has one connection with CLIENT TRACKING. It reads a key, which arms the watch, and the
server reports once when anything changes that key: a client, a script, a module, RENAME, expiry.
There is no other way to learn of all that, and it costs nothing for other keys. The server ignores
the database, so a change in another one is a false alarm.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from threadis import _core, resp
from threadis.coordinator.instances.links import Kind, Link, LinkError, Links, Words, value
from threadis.coordinator.instances.lookup import AT_ONCE, existence_check
from threadis.coordinator.instances.packed import pack
from threadis.coordinator.instances.tasks import Tasks, retry_until_done

log = logging.getLogger(__name__)

STALE_LIMIT: Final = 10_000  # armed keys of an instance that no client waits for any more

Place = tuple[int, bytes]  # database, key


class KeyWatch:
    """Watches keys of one instance."""

    def __init__(
        self,
        index: int,
        links: Links,
        scratch: int,
        wanted: Callable[[bytes | None], list[Place]],
        changed: Callable[[list[Place]], None],
    ) -> None:
        self._index = index
        self._links = links
        self._scratch = scratch  # a database where a write changes no client's key
        self._wanted = wanted  # the places of a key (None: of all) that clients wait for
        self._changed = changed  # called once the places are watched again
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._armed: dict[bytes, set[int]] = {}  # the databases in which the key was not there
        self._stale: dict[bytes, None] = {}
        self._unsent: list[Words] = []  # questions of this turn of the loop, sent together
        self._asked: deque[tuple[Place | None, asyncio.Future[None]] | None] = deque()
        self._to_rearm: dict[bytes, None] = {}  # keys that changed in this turn
        self._recorders: list[dict[bytes, None]] = []  # where changes are recorded
        self._tasks = Tasks()

    def count(self) -> int:
        """Return how many keys are watched for clients."""
        return len(self._armed) - len(self._stale)

    def is_armed(self, key: bytes) -> bool:
        """Whether the next change of a key will be reported."""
        return key in self._armed

    def is_absent(self, place: Place) -> bool:
        """Whether the key did not exist when it was last read."""
        return place[0] in self._armed.get(place[1], ())

    async def arm(self, places: Collection[Place]) -> list[Place]:
        """Watch keys for their next change; return those that exist. LinkError if that fails.

        Requests in the same turn of the loop share a message.
        """
        rest = iter(places)
        while some := list(itertools.islice(rest, AT_ONCE)):
            link = self._link or await self._open()
            if link is None or link is not self._link:
                raise LinkError(
                    f"TRYAGAIN instance {self._index} was lost; the command was not run"
                )
            answers = self._ask(link, some)
            await (answers[0] if len(answers) == 1 else asyncio.gather(*answers))
        return [place for place in places if not self.is_absent(place)]

    @contextlib.contextmanager
    def recording_changes(self, told: dict[bytes, None]) -> Iterator[None]:
        """Record keys that change meanwhile, in order."""
        self._recorders.append(told)
        try:
            yield
        finally:
            self._recorders[:] = [one for one in self._recorders if one is not told]

    async def drain(self) -> None:
        """Wait until all changes up to now are reported."""
        link = self._link
        if link is None:
            raise LinkError(f"TRYAGAIN instance {self._index} was lost")
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send, link)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsent.append([b"PING"])
        self._asked.append((None, answer))
        await answer

    def want(self, key: bytes) -> None:
        """Note that a client waits for a key."""
        self._stale.pop(key, None)

    def forget(self, key: bytes) -> None:
        """Note that no client waits for a key any more. The server cannot disarm one key."""
        if key in self._armed:
            self._stale[key] = None
            if len(self._stale) > STALE_LIMIT:
                stale, self._stale = list(self._stale), {}
                self._tasks.start(self._disarm(stale), "disarming watched keys")

    async def _disarm(self, keys: list[bytes]) -> None:
        """Trigger watches, so that the server forgets them."""
        for at in range(0, len(keys), 1000):
            part = [key for key in keys[at : at + 1000] if key in self._armed]
            if part:
                sets: list[Words] = [[b"SET", key, b""] for key in part]
                block: list[Words] = [[b"MULTI"], *sets, [b"DEL", *part], [b"EXEC"]]
                await self._links.raw(self._index, block, db=self._scratch)

    async def _open(self) -> Link | None:
        async with self._opening:
            if self._link is None:
                opened: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
                self._tasks.start(self._listen(opened), f"watching keys of instance {self._index}")
                await opened
            return self._link

    def _ask(self, link: Link, places: Iterable[Place]) -> list[asyncio.Future[None]]:
        """Read keys."""
        loop, answers = asyncio.get_running_loop(), []
        if not self._unsent:
            loop.call_soon(self._send, link)
        for db, key in places:
            if link.db != db:
                link.db = db
                self._unsent.append([b"SELECT", b"%d" % db])
                self._asked.append(None)
            self._unsent.append(existence_check(key))
            answer: asyncio.Future[None] = loop.create_future()
            answers.append(answer)
            self._asked.append(((db, key), answer))
        return answers

    def _send(self, link: Link) -> None:
        if link is self._link:  # else it was lost, and the questions have failed
            link.writer.write(pack(*self._unsent))
            self._unsent.clear()

    async def _listen(self, opened: asyncio.Future[Link]) -> None:
        """Read what the instance sends, until the connection ends; then start again."""
        try:
            async with self._links.lease(self._index, Kind(resp=3)) as link:
                link.is_spoilt = True  # it has CLIENT TRACKING on
                link.replies = _core.Replies(pushes=True)
                await link.ask([b"CLIENT", b"TRACKING", b"ON"])
                self._link = link
                opened.set_result(link)
                while True:
                    self._receive(await link.next_reply())
        except Exception as error:
            if not isinstance(error, (LinkError, OSError, EOFError, ValueError)):
                log.exception("instance %d: its watched keys are watched again", self._index)
            lost = LinkError(f"TRYAGAIN instance {self._index} was lost: {error}")
            if not opened.done():
                opened.set_exception(lost)
                return
            self._link = None
            self._armed.clear()
            self._stale.clear()
            self._unsent.clear()
            asked, self._asked = self._asked, deque()
            for item in asked:
                if item and not item[1].done():
                    item[1].set_exception(lost)
            renewing = retry_until_done(
                self._rearm_all, f"watching keys of instance {self._index} again"
            )
            self._tasks.start(renewing, "alarms")

    def _receive(self, reply: bytes) -> None:
        if reply.startswith(b">"):
            _, names = value(reply)
            self._keys_changed(names)
            return
        item = self._asked.popleft()
        if item:
            place, answer = item
            if reply.startswith(b"-"):
                answer.set_exception(LinkError(reply[1:-2].decode(errors="replace")))
                return
            if place is None:
                answer.set_result(None)
                return
            db, key = place
            absent = self._armed.setdefault(key, set())
            (absent.add if reply in resp.NULLS else absent.discard)(db)
            if self._wanted(key):
                self.want(key)
            else:
                self.forget(key)  # its client has gone meanwhile, or does not wait yet
            answer.set_result(None)
        elif reply.startswith(b"-"):  # SELECT failed, for instance because a script runs there
            raise ValueError("it is in another database")

    def _keys_changed(self, names: list[bytes] | None) -> None:
        """These keys have changed; None: all, which disarms everything."""
        for told in self._recorders:
            told.update(dict.fromkeys(names or self._armed))
        for name in names or list(self._armed):
            self._armed.pop(name, None)
            self._stale.pop(name, None)
        if names is None:
            self._start_rearming(self._wanted(None))
        else:
            if not self._to_rearm:
                asyncio.get_running_loop().call_soon(self._arm_changed)
            self._to_rearm.update(dict.fromkeys(names))

    def _arm_changed(self) -> None:
        """Watch changed keys again, unless their clients were served in the same turn."""
        names, self._to_rearm = self._to_rearm, {}
        self._start_rearming([place for name in names for place in self._wanted(name)])

    def _start_rearming(self, places: list[Place]) -> None:
        if places:
            self._tasks.start(self._rearm(places), "watching keys again")

    async def _rearm(self, places: list[Place]) -> None:
        await self.arm(places)  # if the connection is lost, _renew does it
        self._changed(places)

    async def _rearm_all(self) -> None:
        """Watch everything again; LinkError if the instance cannot be reached."""
        if places := self._wanted(None):
            await self._rearm(places)
