"""Keyspace events of commands over several instances: subscribers get what one server would send.

Instances publish events of what they do: of commands on copies, in a hidden database, and of copies
that are created, written back, deleted. So while a client subscribes to events, the blocks contain
marks (messages to a channel of ours, see ``rust/src/tables/event_feeds.rs``). Events of the
client's command are kept, in its order; all others are dropped. When everything is done, and before
the client gets its reply, the kept events are published.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

from threadis import _core
from threadis.coordinator.instances.links import Words
from threadis.coordinator.keys.write_parts import Part, PartPlace

T = TypeVar("T")

ALL: Final = frozenset(b"g$lshzxetd")  # what "A" stands for
WRITES_BACK: Final = frozenset({b"RESTORE", b"DEL"})  # DEL of one key
ENDS: Final = b"ABSTTL"
CHANNEL, SHARD = 0, 2  # kinds of subscriptions that PUBLISH and SPUBLISH are for
GENERIC, MISS, TIMES = b"g", b"m", b"x"  # classes of events
EXPIRED: Final = b"expired"


@dataclass(frozen=True, slots=True)
class Publication:
    """PUBLISH or SPUBLISH in a transaction."""

    place: int  # among its commands
    kind: int  # of subscriptions
    channel: bytes
    payload: bytes


class CommandEvents:
    """The events of one command in a database."""

    def __init__(self, events: "Events", number: int, db: int) -> None:
        self._events, self.number = events, number
        self.dbs: Sequence[int] = [db]  # whose copies are in our first database for them, and so on
        self.is_void = False  # the run does not count
        # Of commands that run together on copies, their places in its order; else they have one.
        self.places: Sequence[int] = ()

    def begin(self, dbs: Sequence[int]) -> None:
        """Begin a run, or a rerun, in these databases."""
        self.dbs = dbs
        if self.is_void:
            self.is_void = False
            self._events.restart(self)

    def step(self, place: int) -> Words:
        """Mark what follows as the command's own, at this place of its order."""
        return self._events.mark(self._step(place))

    def only_new_keys(self, place: int) -> Words:
        """Mark what follows as the command's own, but only events about new keys."""
        return self._events.mark(self._step(place) + b" new")

    def _step(self, place: int) -> bytes:
        return b" ".join(b"%d" % number for number in (self.number, place, *self.dbs))

    def mute(self) -> Words:
        """Mark what follows as nothing to publish."""
        return self._events.mark(b"-")

    def end(self) -> Words:
        """End what the last mark began."""
        return self._events.mark(b"")

    def written(self) -> Words:
        """Mark the end of what is written back."""
        return self._events.mark(b"= %d" % self.number)

    def publish(self, message: "Publication") -> None:
        """Publish a message of the command's own, at its place."""
        self._events.publish(self.number, message)

    def lend(self, db: int, keys: Sequence[bytes]) -> None:
        """Keep expired events of these keys with the command's events."""
        self._events.core.lend(self.number, db, keys)

    def give_back(self, db: int, keys: Sequence[bytes]) -> None:
        """Publish them now: these keys do not exist, or do not expire."""
        self._events.core.give_back(self.number, db, keys)

    def cancel_expiry(self, db: int, key: bytes) -> None:
        """The command has itself replaced or deleted this key."""
        self._events.core.settle(self.number, db, key)

    def add_end(self, db: int, key: bytes) -> None:
        """Add an expired event, after all others."""
        for channel, payload in self._events.messages(db, EXPIRED, key, TIMES):
            self._events.core.add_end(self.number, channel, payload)

    def add_first(self, db: int, key: bytes) -> None:
        """Add that a lent key had expired before the command came to it, unless its instance
        publishes that, now or later.
        """
        for channel, payload in self._events.messages(db, EXPIRED, key, TIMES):
            self._events.core.add_first(self.number, db, key, channel, payload)

    def add(self, db: int, name: bytes, key: bytes, kind: bytes = GENERIC) -> None:
        """Add an event that no instance publishes; after those of new keys."""
        self._events.add(self.number, db, name, key, kind)


# The events of the present command, if a client subscribes to events.
command_events: ContextVar[CommandEvents | None] = ContextVar("command_events", default=None)


class Events:
    """Publishes events of commands over several instances."""

    def __init__(self, core: _core.Proxy, hear_all: Callable[[], Awaitable[None]]) -> None:
        self.core = _core.EventFeeds(core)
        self._drain = hear_all
        self._numbers = itertools.count(1)
        self.flags = b""  # notify-keyspace-events
        self.are_enabled = True  # or we do not know it

    @contextlib.asynccontextmanager
    async def of_one_command(
        self, db: int, *, has_scripts: bool = False
    ) -> AsyncIterator[CommandEvents]:
        """Collect the events of one command, and publish them in order when it is done.

        Messages that scripts publish are included: a run that is repeated has published nothing.
        """
        number = next(self._numbers)
        mine = CommandEvents(self, number, db)
        if not has_scripts and not self.core.tells_events():
            yield mine
            return
        self.core.keep(number)
        before = command_events.set(mine)
        try:
            yield mine
            if not mine.is_void:
                await self._drain()
                self.core.tell(mine.number)
        finally:
            command_events.reset(before)
            self.core.forget(mine.number)

    def restart(self, mine: CommandEvents) -> None:
        """Forget what a command has collected so far; later events of that run are dropped."""
        self.core.forget(mine.number)
        mine.number = next(self._numbers)
        self.core.keep(mine.number)

    def has_subscribers(self) -> bool:
        """Whether a client subscribes to events."""
        return self.core.tells_events()

    def receivers(self, message: Publication) -> int:
        """Count the receivers of a message."""
        return self.core.receivers(message.kind, message.channel)

    def publish(self, number: int, message: Publication) -> None:
        """Keep a message of a command."""
        self.core.add(number, message.place, message.kind, message.channel, message.payload)

    def mark(self, what: bytes) -> Words:
        """Build a mark."""
        return [b"PUBLISH", self.core.marks(), what]

    def around_misses(self) -> tuple[list[Words], list[Words]]:
        """Return the marks around questions whose misses must not be published."""
        if MISS in self.flags and self.core.tells_events():
            return [self.mark(b"?")], [self.mark(b"")]
        return [], []

    def add(self, number: int, db: int, name: bytes, key: bytes, kind: bytes) -> None:
        """Keep an event of a class, if instances would publish it."""
        for channel, payload in self.messages(db, name, key, kind):
            self.core.add(number, 1, CHANNEL, channel, payload)

    def messages(
        self, db: int, name: bytes, key: bytes, kind: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the messages of an event of a class: channel and payload."""
        if kind in self.flags or (b"A" in self.flags and ALL.issuperset(kind)):
            if b"K" in self.flags:
                yield b"__keyspace@%d__:%s" % (db, key), name
            if b"E" in self.flags:
                yield b"__keyevent@%d__:%s" % (db, name), key


class MarkedParts:
    """The parts of a write, with marks in them if a client subscribes to events."""

    def __init__(
        self,
        parts: Mapping[int, Part],
        steps: Mapping[PartPlace, int] | None,
        db: int,
        *,
        makes_new: bool,
        asks: bool,
    ) -> None:
        """``steps`` has the place of each command (instance, number) in the order of events.
        Without it no events are published, except that keys are new if this ``makes_new`` ones.

        What such a write restores may have expired since the command has run: that is checked if a
        client subscribes, or if this ``asks``.
        """
        self.parts: dict[int, Part] = dict(parts)
        self._places = {index: list(range(len(part))) for index, part in parts.items()}
        self._restored: list[tuple[PartPlace, int, bytes]] = []  # where it is looked at, and what
        mine = command_events.get()
        if mine is None and (steps is not None or not asks):
            return
        for index, part in parts.items():
            marked: list[Words] = []
            where = db
            if steps is None and mine:
                marked.append(mine.only_new_keys(0) if makes_new else mine.mute())
            for at, words in enumerate(part):
                if steps is not None and mine:
                    marked.append(mine.step(steps[index, at]))
                self._places[index][at] = len(marked)
                marked.append(words)
                if words[0] == b"SELECT":
                    where = int(words[1])
                elif steps is None and words[0] in WRITES_BACK:
                    if mine:
                        mine.cancel_expiry(where, words[1])
                    if ENDS in words[4:]:
                        self._restored.append(((index, len(marked)), where, words[1]))
                        marked.append([b"PEXPIRETIME", words[1]])
            if mine:
                marked.append(mine.end() if steps is not None else mine.written())
            self.parts[index] = marked

    def moved(self, places: Mapping[PartPlace, T]) -> dict[PartPlace, T]:
        """Convert places in the parts to places among the marks."""
        return {(index, self._places[index][at]): one for (index, at), one in places.items()}

    def replies(self, found: Mapping[int, Sequence[bytes]]) -> dict[int, list[bytes]]:
        """Return the replies without those of the marks."""
        return {
            index: [found[index][at] for at in places] for index, places in self._places.items()
        }

    def asked(self, found: Mapping[int, Sequence[bytes]]) -> Iterator[tuple[int, Words, bytes]]:
        """Yield what was checked on which instance, and the reply."""
        for (index, at), _, key in self._restored:
            yield index, [b"PEXPIRETIME", key], found[index][at]

    def expired(self, found: Mapping[int, Sequence[bytes]]) -> list[bytes]:
        """Return the checked keys that have expired before they were written."""
        gone = [one for one in self._restored if found[one[0][0]][one[0][1]] == b":-2\r\n"]
        if mine := command_events.get():
            for _, db, key in gone:
                mine.add_end(db, key)
        return [key for _, _, key in gone]
