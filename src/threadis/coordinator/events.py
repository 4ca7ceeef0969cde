"""Keyspace events of commands over several instances: subscribers hear what one server would say.

Instances tell of what they do: of commands on copies, in a database that nobody sees, and of
copies that are made, written back, deleted. So while somebody listens, marks stand around these
in the blocks of commands (messages to a channel of ours, see ``rust/src/upstreams.rs``): events
of the client's command are kept, with their place in its order, all others are dropped. Once all
has happened, and before the client hears of it, they are told.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

from threadis import _core
from threadis.coordinator.links import Words
from threadis.coordinator.phases import Part, Place

T = TypeVar("T")

ALL: Final = frozenset(b"g$lshzxetd")  # what "A" stands for
CHANNEL, SHARD = 0, 2  # kinds of subscriptions that PUBLISH and SPUBLISH are for
GENERIC, MISS = b"g", b"m"  # classes of events


@dataclass(frozen=True, slots=True)
class Publication:
    """PUBLISH or SPUBLISH in a transaction."""

    place: int  # among its commands
    kind: int  # of subscriptions
    channel: bytes
    payload: bytes


class Telling:
    """The events of one command in a database."""

    def __init__(self, events: "Events", number: int, db: int) -> None:
        self._events, self._number = events, number
        self.dbs: Sequence[int] = [db]  # whose copies are in our first database for them, and so on
        self.is_void = False  # it was not done after all
        # Of commands that run together on copies, their places in its order; else they have one.
        self.places: Sequence[int] = ()

    def step(self, place: int) -> Words:
        """Mark what follows as the command's own, in this place of its order."""
        return self._events.mark(self._step(place))

    def only_new(self, place: int) -> Words:
        """Mark what follows as that, but only where it tells of new keys."""
        return self._events.mark(self._step(place) + b" new")

    def _step(self, place: int) -> bytes:
        return b" ".join(b"%d" % number for number in (self._number, place, *self.dbs))

    def silence(self) -> Words:
        """Mark what follows as nothing that anybody should hear of."""
        return self._events.mark(b"-")

    def end(self) -> Words:
        """End either."""
        return self._events.mark(b"")

    def publish(self, message: "Publication") -> None:
        """Tell of a message of the command's own, in its place."""
        self._events.publish(self._number, message)

    def add(self, db: int, name: bytes, key: bytes, kind: bytes = GENERIC) -> None:
        """Add an event that nobody has told; behind those of new keys."""
        self._events.add(self._number, db, name, key, kind)


# The events of the command at hand, if somebody listens.
telling: ContextVar[Telling | None] = ContextVar("telling", default=None)


class Events:
    """Tells of commands over several instances."""

    def __init__(self, core: _core.Proxy, hear_all: Callable[[], Awaitable[None]]) -> None:
        self._core = _core.Upstreams(core)
        self._hear_all = hear_all
        self._numbers = itertools.count(1)
        self.flags = b""  # notify-keyspace-events
        self.are_told = True  # or we do not know it

    @contextlib.asynccontextmanager
    async def of_one_command(self, db: int, *, has_scripts: bool = False) -> AsyncIterator[Telling]:
        """Tell of what one command does, in its own order, when it is done.

        Of scripts also what they publish: a run that is made again has published nothing.
        """
        number = next(self._numbers)
        mine = Telling(self, number, db)
        if not has_scripts and not self._core.tells_events():
            yield mine
            return
        self._core.keep(number)
        before = telling.set(mine)
        try:
            yield mine
            if not mine.is_void:
                await self._hear_all()
                self._core.tell(number)
        finally:
            telling.reset(before)
            self._core.forget(number)

    def tells(self) -> bool:
        """Whether anybody listens to events."""
        return self._core.tells_events()

    def receivers(self, message: Publication) -> int:
        """Count who will receive a message."""
        return self._core.receivers(message.kind, message.channel)

    def publish(self, number: int, message: Publication) -> None:
        """Keep a message of a command."""
        self._core.add(number, message.place, message.kind, message.channel, message.payload)

    def mark(self, what: bytes) -> Words:
        """Build a mark."""
        return [b"PUBLISH", self._core.marks(), what]

    def around_misses(self) -> tuple[list[Words], list[Words]]:
        """What stands, in a block, before and behind questions of which no miss is to be told."""
        if MISS in self.flags and self._core.tells_events():
            return [self.mark(b"?")], [self.mark(b"")]
        return [], []

    def add(self, number: int, db: int, name: bytes, key: bytes, kind: bytes) -> None:
        """Keep an event of a class, if instances would tell of it."""
        if kind in self.flags or (b"A" in self.flags and ALL.issuperset(kind)):
            if b"K" in self.flags:
                self._core.add(number, 1, CHANNEL, b"__keyspace@%d__:%s" % (db, key), name)
            if b"E" in self.flags:
                self._core.add(number, 1, CHANNEL, b"__keyevent@%d__:%s" % (db, name), key)


class Marked:
    """The parts of a write, with marks in them if somebody listens."""

    def __init__(
        self,
        parts: Mapping[int, Part],
        steps: Mapping[Place, int] | None,
        *,
        makes_new: bool,
    ) -> None:
        """``steps`` has the place of each command (instance, number) in the order of events; with
        none, nobody is to hear of any, except that keys are new if this ``makes_new`` ones.
        """
        self.parts: dict[int, Part] = dict(parts)
        self._places = {index: list(range(len(part))) for index, part in parts.items()}
        if (mine := telling.get()) is None:
            return
        for index, part in parts.items():
            marked: list[Words] = []
            if steps is None:
                marked.append(mine.only_new(0) if makes_new else mine.silence())
            for at, words in enumerate(part):
                if steps is not None:
                    marked.append(mine.step(steps[index, at]))
                self._places[index][at] = len(marked)
                marked.append(words)
            self.parts[index] = [*marked, mine.end()]

    def moved(self, places: Mapping[Place, T]) -> dict[Place, T]:
        """Find the same places among the marks."""
        return {(index, self._places[index][at]): one for (index, at), one in places.items()}

    def replies(self, found: Mapping[int, Sequence[bytes]]) -> dict[int, list[bytes]]:
        """The replies to the parts themselves."""
        return {
            index: [found[index][at] for at in places] for index, places in self._places.items()
        }
