"""Keyspace events of commands over several instances: subscribers hear what one server would say.

Instances tell of what they do: of commands on copies, in a database that nobody sees, and of
copies that are made, written back, deleted. So while somebody listens, marks stand around these
in the blocks of commands (messages to a channel of ours, see ``rust/src/upstreams.rs``): events
of the client's command are kept, with their place in its order, all others are dropped. Once all
has happened, and before the client hears of it, they are told.
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
        self.is_void = False  # it was not done after all
        # Of commands that run together on copies, their places in its order; else they have one.
        self.places: Sequence[int] = ()

    def begin(self, dbs: Sequence[int]) -> None:
        """Begin to do it, or do it again; these are the databases."""
        self.dbs = dbs
        if self.is_void:
            self.is_void = False
            self._events.restart(self)

    def step(self, place: int) -> Words:
        """Mark what follows as the command's own, in this place of its order."""
        return self._events.mark(self._step(place))

    def only_new_keys(self, place: int) -> Words:
        """Mark what follows as that, but only where it tells of new keys."""
        return self._events.mark(self._step(place) + b" new")

    def _step(self, place: int) -> bytes:
        return b" ".join(b"%d" % number for number in (self.number, place, *self.dbs))

    def mute(self) -> Words:
        """Mark what follows as nothing that anybody should hear of."""
        return self._events.mark(b"-")

    def end(self) -> Words:
        """End either."""
        return self._events.mark(b"")

    def written(self) -> Words:
        """Mark the end of what is written back."""
        return self._events.mark(b"= %d" % self.number)

    def publish(self, message: "Publication") -> None:
        """Tell of a message of the command's own, in its place."""
        self._events.publish(self.number, message)

    def lend(self, db: int, keys: Sequence[bytes]) -> None:
        """Tell with the command's events that one of these has expired meanwhile."""
        self._events.core.lend(self.number, db, keys)

    def give_back(self, db: int, keys: Sequence[bytes]) -> None:
        """Tell it now: the command does not find these, or nothing limits their time."""
        self._events.core.give_back(self.number, db, keys)

    def cancel_expiry(self, db: int, key: bytes) -> None:
        """What the command has found of this key is over, by its own doing."""
        self._events.core.settle(self.number, db, key)

    def add_end(self, db: int, key: bytes) -> None:
        """Add that a key has expired, behind everything."""
        for channel, payload in self._events.messages(db, EXPIRED, key, TIMES):
            self._events.core.add_end(self.number, channel, payload)

    def add_first(self, db: int, key: bytes) -> None:
        """Add that a lent key had expired before the command came to it, unless its instance says
        so, now or later.
        """
        for channel, payload in self._events.messages(db, EXPIRED, key, TIMES):
            self._events.core.add_first(self.number, db, key, channel, payload)

    def add(self, db: int, name: bytes, key: bytes, kind: bytes = GENERIC) -> None:
        """Add an event that nobody has told; behind those of new keys."""
        self._events.add(self.number, db, name, key, kind)


# The events of the command at hand, if somebody listens.
command_events: ContextVar[CommandEvents | None] = ContextVar("command_events", default=None)


class Events:
    """Tells of commands over several instances."""

    def __init__(self, core: _core.Proxy, hear_all: Callable[[], Awaitable[None]]) -> None:
        self.core = _core.Upstreams(core)
        self._drain = hear_all
        self._numbers = itertools.count(1)
        self.flags = b""  # notify-keyspace-events
        self.are_enabled = True  # or we do not know it

    @contextlib.asynccontextmanager
    async def of_one_command(
        self, db: int, *, has_scripts: bool = False
    ) -> AsyncIterator[CommandEvents]:
        """Tell of what one command does, in its own order, when it is done.

        Of scripts also what they publish: a run that is made again has published nothing.
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
        """Forget what a command has told so far; what comes of that later has its old number."""
        self.core.forget(mine.number)
        mine.number = next(self._numbers)
        self.core.keep(mine.number)

    def has_subscribers(self) -> bool:
        """Whether anybody listens to events."""
        return self.core.tells_events()

    def receivers(self, message: Publication) -> int:
        """Count who will receive a message."""
        return self.core.receivers(message.kind, message.channel)

    def publish(self, number: int, message: Publication) -> None:
        """Keep a message of a command."""
        self.core.add(number, message.place, message.kind, message.channel, message.payload)

    def mark(self, what: bytes) -> Words:
        """Build a mark."""
        return [b"PUBLISH", self.core.marks(), what]

    def around_misses(self) -> tuple[list[Words], list[Words]]:
        """What stands, in a block, before and behind questions of which no miss is to be told."""
        if MISS in self.flags and self.core.tells_events():
            return [self.mark(b"?")], [self.mark(b"")]
        return [], []

    def add(self, number: int, db: int, name: bytes, key: bytes, kind: bytes) -> None:
        """Keep an event of a class, if instances would tell of it."""
        for channel, payload in self.messages(db, name, key, kind):
            self.core.add(number, 1, CHANNEL, channel, payload)

    def messages(
        self, db: int, name: bytes, key: bytes, kind: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """The messages of an event of a class: on which channel, and what they say."""
        if kind in self.flags or (b"A" in self.flags and ALL.issuperset(kind)):
            if b"K" in self.flags:
                yield b"__keyspace@%d__:%s" % (db, key), name
            if b"E" in self.flags:
                yield b"__keyevent@%d__:%s" % (db, name), key


class MarkedParts:
    """The parts of a write, with marks in them if somebody listens."""

    def __init__(
        self,
        parts: Mapping[int, Part],
        steps: Mapping[PartPlace, int] | None,
        db: int,
        *,
        makes_new: bool,
        asks: bool,
    ) -> None:
        """``steps`` has the place of each command (instance, number) in the order of events; with
        none, nobody is to hear of any, except that keys are new if this ``makes_new`` ones.

        What such a write restores may have expired since the command has run: if somebody listens,
        or this ``asks``, it is looked at.
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
        """Find the same places among the marks."""
        return {(index, self._places[index][at]): one for (index, at), one in places.items()}

    def replies(self, found: Mapping[int, Sequence[bytes]]) -> dict[int, list[bytes]]:
        """The replies to the parts themselves."""
        return {
            index: [found[index][at] for at in places] for index, places in self._places.items()
        }

    def asked(self, found: Mapping[int, Sequence[bytes]]) -> Iterator[tuple[int, Words, bytes]]:
        """What was looked at on which instance, and the answer."""
        for (index, at), _, key in self._restored:
            yield index, [b"PEXPIRETIME", key], found[index][at]

    def expired(self, found: Mapping[int, Sequence[bytes]]) -> list[bytes]:
        """What has expired before it was written, of the keys that were looked at."""
        gone = [one for one in self._restored if found[one[0][0]][one[0][1]] == b":-2\r\n"]
        if mine := command_events.get():
            for _, db, key in gone:
                mine.add_end(db, key)
        return [key for _, _, key in gone]
