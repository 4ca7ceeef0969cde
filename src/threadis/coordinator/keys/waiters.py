"""Clients that wait for keys: one queue a key, longest waiting first."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, KeysView, Sequence
from dataclasses import dataclass, field
from typing import Final

from threadis import _core, resp
from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.base.numbers import parse_integer, parse_seconds
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.stream_read import StreamRead
from threadis.coordinator.keys.stream_read import parse as parse_streams

LIST: Final = b"list"
ZSET: Final = b"zset"
STREAM: Final = b"stream"
GROUP: Final = b"group:"  # and its name: they share what a stream has, others do not
TYPES: Final = {  # of the value a command waits for
    "blpop": LIST,
    "brpop": LIST,
    "blmove": LIST,
    "brpoplpush": LIST,
    "blmpop": LIST,
    "bzpopmin": ZSET,
    "bzpopmax": ZSET,
    "bzmpop": ZSET,
    "xread": STREAM,
    "xreadgroup": STREAM,
}
# What may make what somebody waits for: who waits for several keys is given the one that was there
# first, not that which was named first (by DEL, say).
MAKERS: Final = SCRIPTS | {
    "lpush", "rpush", "lmove", "rpoplpush", "blmove", "brpoplpush", "sort", "zadd", "zincrby",
    "zunionstore", "zinterstore", "zdiffstore", "zrangestore", "geoadd", "georadius",
    "georadiusbymember", "geosearchstore", "xadd", "xgroup|create", "rename", "renamenx", "copy",
    "move", "restore", "swapdb",
}  # fmt: skip
MOVES: Final = ("blmove", "brpoplpush")
POPS: Final = ("blpop", "brpop", "bzpopmin", "bzpopmax")
PLAIN: Final = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")  # a number of seconds that all understand
ENDS: Final = frozenset((b"LEFT", b"RIGHT"))
COUNTED: Final = ("blmpop", "bzmpop")
AT_ONCE: Final = 1000  # keys with which something is done in one step: some milliseconds

ClientKey = tuple[int, int, int]  # worker, place, generation


@dataclass(frozen=True, slots=True)
class BlockingRequest:
    """A blocking command that the server has found no fault with."""

    name: str
    args: Sequence[bytes]
    keys: list[bytes]  # for which it waits, in the client's order
    timeout: float  # seconds; 0: for ever
    target: bytes | None = None  # where an element goes
    streams: StreamRead | None = None

    @property
    def type(self) -> bytes:
        """The type of the value it waits for."""
        return TYPES[self.name]

    @property
    def queue(self) -> bytes:
        """With whom it stands in line: those who take from each other what a key has."""
        if self.needs_key and self.streams:
            return GROUP + self.streams.group
        return self.type

    @property
    def takes(self) -> bool:
        """Whether others get what it does not; XREAD leaves everything where it is."""
        return self.name != "xread"

    @property
    def needs_key(self) -> bool:
        """Whether it ends when its key does: a consumer group goes with its stream."""
        return self.name == "xreadgroup"

    @property
    def blocks(self) -> bool:
        """Whether it waits if there is nothing."""
        return self.streams is None or self.streams.block is not None

    @property
    def is_certainly_valid(self) -> bool:
        """Whether its only fault could be its number, and that is none."""
        if self.name == "blmove" and not ENDS.issuperset(map(bytes.upper, self.args[3:5])):
            return False
        return self.name in POPS + MOVES and PLAIN.fullmatch(self.args[-1]) is not None

    def only(self, key: bytes) -> Words:
        """Build the same command for one of its keys."""
        if self.streams:
            return self.streams.only(key)
        if self.target is not None:
            return self.args
        if self.name in COUNTED:
            return [self.args[0], self.args[1], b"1", key, *self.args[3 + len(self.keys) :]]
        return [self.args[0], key, self.args[-1]]

    def without_block(self) -> Words:
        """Build an XREAD or XREADGROUP that does not wait."""
        assert self.streams
        return self.streams.words(self.streams.keys, self.streams.ids)

    def move(self) -> Words:
        """Build the command that moves an element, if there is one."""
        ends = [b"RIGHT", b"LEFT"] if self.name == "brpoplpush" else list(self.args[3:5])
        return [b"LMOVE", *self.args[1:3], *ends]


def parse_request(name: str, args: Sequence[bytes], keys: list[bytes]) -> BlockingRequest | None:
    """Read a command; None if its syntax is wrong."""
    if name in ("xread", "xreadgroup"):
        read = parse_streams(args)
        if read is None:
            return None
        wait = parse_integer(read.block or b"0")
        if wait is None or wait < 0:
            return None
        return BlockingRequest(name, args, read.keys, wait / 1000, None, read)
    timeout = parse_seconds(args[1] if name in COUNTED else args[-1])
    if timeout is None or timeout < 0 or not keys:
        return None
    if name in MOVES:
        return BlockingRequest(name, args, keys[:1], timeout, keys[1])
    return BlockingRequest(name, args, keys, timeout)


@dataclass(eq=False, slots=True)
class Waiter:
    """A client that waits."""

    command: _core.Command
    request: BlockingRequest
    timer: asyncio.TimerHandle | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while its command is tried
    final_reply: bytes | None = None  # what ends its wait, should that find nothing
    is_over: bool = False
    places: list[Place] = field(default_factory=list)
    wrong_type_keys: set[bytes] = field(
        default_factory=set
    )  # keys of XREAD seen to be of another type

    @property
    def db(self) -> int:
        """Its database."""
        return self.command.info.db

    @property
    def kind(self) -> Kind:
        """The connection its commands need."""
        return Kind(resp=self.command.info.resp)

    @property
    def timeout_reply(self) -> bytes:
        """What it hears when its time is over."""
        return resp.null_array(self.command.info.resp)


class Waiters:
    """All clients that wait. Everything here costs the same, however many these are.

    Who waits for very many keys stands in their lines, and is taken out of them, in steps.
    """

    def __init__(self) -> None:
        self._queues: dict[Place, dict[bytes, OrderedDict[Waiter, None]]] = {}  # by line
        self._databases: dict[bytes, set[int]] = {}  # of each key, where someone waits for it
        self._groups: dict[Place, int] = {}  # lines of consumers of groups
        self._by_client: dict[ClientKey, Waiter] = {}
        self._by_id: dict[int, Waiter] = {}
        self._moves = 0
        self._leaving: dict[Waiter, None] = {}  # still in some lines, though nobody sees them there

    def __contains__(self, place: Place) -> bool:
        return place in self._queues

    def __len__(self) -> int:
        return len(self._by_client)

    def add(self, waiter: Waiter) -> None:
        """Take note of a client that waits; it stands nowhere yet."""
        self._by_client[client_key(waiter.command)] = waiter
        self._by_id[waiter.command.info.id] = waiter
        self._moves += waiter.request.target is not None

    def enqueue(self, waiter: Waiter, keys: Collection[bytes]) -> list[Place]:
        """Put a client at the end of the queues of some of its keys; those that are new."""
        name, new = waiter.request.queue, []
        for key in keys:
            place = (waiter.db, key)
            lines = self._queues.get(place)
            if lines is None:
                lines = self._queues[place] = {}
                new.append(place)
            if name not in lines:
                lines[name] = OrderedDict()
                if waiter.request.needs_key:
                    self._groups[place] = self._groups.get(place, 0) + 1
            elif waiter in lines[name]:
                continue  # a key that it names several times
            lines[name][waiter] = None
            waiter.places.append(place)
            self._databases.setdefault(key, set()).add(waiter.db)
        return new

    def remove(self, waiter: Waiter) -> None:
        """Take note that a client waits no more; ``take_out`` says which queues that ends."""
        del self._by_client[client_key(waiter.command)]
        del self._by_id[waiter.command.info.id]
        self._moves -= waiter.request.target is not None
        self._leaving[waiter] = None

    def dequeue(self, waiter: Waiter) -> list[Place]:
        """Take who is removed out of some of its queues, until it has no places any more; those
        that have ended.
        """
        ended, name = [], waiter.request.queue
        for place in waiter.places[-AT_ONCE:]:
            lines = self._queues.get(place, {})
            if name not in lines:
                continue  # others have left it, too
            lines[name].pop(waiter, None)
            if not lines[name]:
                del lines[name]
                if waiter.request.needs_key:
                    self._groups[place] -= 1
                    if not self._groups[place]:
                        del self._groups[place]
            if not lines:
                self._end(place)
                ended.append(place)
        del waiter.places[-AT_ONCE:]
        if not waiter.places:
            del self._leaving[waiter]
        return ended

    def _end(self, place: Place) -> None:
        del self._queues[place]
        db, key = place
        self._databases[key].discard(db)
        if not self._databases[key]:
            del self._databases[key]

    def queues(self, place: Place) -> list[bytes]:
        """In which lines clients stand for a key."""
        return list(self._queues.get(place, ()))

    def queue(self, place: Place, name: bytes) -> Collection[Waiter]:
        """Who stands in a line, longest first."""
        line = self._queues.get(place, {}).get(name)
        if line is None:
            return ()
        for waiter in self._leaving:
            line.pop(waiter, None)
        return line

    def all_at(self, place: Place) -> list[Waiter]:
        """Everybody who waits for a key."""
        return [waiter for name in self.queues(place) for waiter in self.queue(place, name)]

    def first(self, place: Place, name: bytes) -> Waiter | None:
        """Who has stood in a line for longest."""
        return next(iter(self.queue(place, name)), None)

    def of_key(self, key: bytes) -> list[Place]:
        """The places of a key's name for which someone waits."""
        return [(db, key) for db in self._databases.get(key, ())]

    def places(self) -> list[Place]:
        """Everything for which someone waits."""
        return list(self._queues)

    def count_places(self) -> int:
        """Return for how many keys someone waits."""
        return len(self._queues)

    def count_moves(self) -> int:
        """Return how many of them would carry something on."""
        return self._moves

    def with_groups(self) -> Collection[Place]:
        """Keys for which consumers of groups wait."""
        return self._groups.keys()

    def of_client(self, client: ClientKey) -> Waiter | None:
        """Find a client's wait."""
        return self._by_client.get(client)

    def of_id(self, client_id: int) -> Waiter | None:
        """The same by the id that clients know."""
        return self._by_id.get(client_id)

    def clients(self) -> KeysView[ClientKey]:
        """All clients that wait."""
        return self._by_client.keys()


@dataclass(frozen=True, slots=True)
class WaitedPlaces:
    """The places at one instance for which someone waits."""

    index: int
    waiters: Waiters
    owner: Callable[[int, bytes], int]

    def __call__(self, key: bytes | None) -> list[Place]:
        """Those of a key; None: all."""
        places = self.waiters.places() if key is None else self.waiters.of_key(key)
        return [place for place in places if self.owner(*place) == self.index]


def client_key(command: _core.Command) -> ClientKey:
    """Name a command's client."""
    return (command.worker, command.place, command.generation)
