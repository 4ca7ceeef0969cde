"""Clients that wait for keys: a queue for each key, in order of arrival."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, KeysView, Sequence
from dataclasses import dataclass, field
from typing import Final

from threadis import _core, resp
from threadis.catalog.blocking import BLOCKING, Form
from threadis.coordinator.base.numbers import parse_integer, parse_seconds
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.stream_read import StreamRead
from threadis.coordinator.keys.stream_read import parse as parse_streams

GROUP: Final = b"group:"  # and its name: consumers of a group share its entries
PLAIN: Final = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")  # a number of seconds that all understand
ENDS: Final = frozenset((b"LEFT", b"RIGHT"))
AT_ONCE: Final = 1000  # keys with which something is done in one step: some milliseconds

ClientKey = tuple[int, int, int]  # worker, place, generation


@dataclass(frozen=True, slots=True)
class BlockingRequest:
    """A blocking command with valid syntax."""

    name: str
    args: Sequence[bytes]
    keys: list[bytes]  # for which it waits, in the client's order
    timeout: float  # seconds; 0: for ever
    target: bytes | None = None  # where an element goes
    streams: StreamRead | None = None

    @property
    def form(self) -> Form:
        """The form of its arguments."""
        return BLOCKING[self.name].form

    @property
    def type(self) -> bytes:
        """The type of value it waits for."""
        return BLOCKING[self.name].waits_for

    @property
    def queue(self) -> bytes:
        """The queue it joins: commands that compete for the same elements share one."""
        if self.needs_key and self.streams:
            return GROUP + self.streams.group
        return self.type

    @property
    def takes(self) -> bool:
        """Whether it removes what it gets; XREAD does not."""
        return self.name != "xread"

    @property
    def needs_key(self) -> bool:
        """Whether its wait ends when the key is deleted: a consumer group goes with its stream."""
        return self.name == "xreadgroup"

    @property
    def blocks(self) -> bool:
        """Whether it waits if there is nothing."""
        return self.streams is None or self.streams.block is not None

    @property
    def is_certainly_valid(self) -> bool:
        """Whether its only possible error is the timeout, and that is valid."""
        if self.name == "blmove" and not ENDS.issuperset(map(bytes.upper, self.args[3:5])):
            return False
        is_last = self.form in (Form.POP, Form.MOVE)
        return is_last and PLAIN.fullmatch(self.args[-1]) is not None

    def only(self, key: bytes) -> Words:
        """Build the same command for one of its keys."""
        if self.streams:
            return self.streams.only(key)
        if self.target is not None:
            return self.args
        if self.form is Form.COUNTED_POP:
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
    """Parse a command; None if its syntax is wrong."""
    blocking = BLOCKING[name]
    if blocking.timeout_at is None:
        read = parse_streams(args)
        if read is None:
            return None
        wait = parse_integer(read.block or b"0")
        if wait is None or wait < 0:
            return None
        return BlockingRequest(name, args, read.keys, wait / 1000, None, read)
    timeout = parse_seconds(args[blocking.timeout_at])
    if timeout is None or timeout < 0 or not keys:
        return None
    if blocking.form is Form.MOVE:
        return BlockingRequest(name, args, keys[:1], timeout, keys[1])
    return BlockingRequest(name, args, keys, timeout)


@dataclass(eq=False, slots=True)
class Waiter:
    """A client that waits."""

    command: _core.Command
    request: BlockingRequest
    timer: asyncio.TimerHandle | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while its command is tried
    final_reply: bytes | None = None  # the reply if its present attempt finds nothing
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
        """The reply when its time is over."""
        return resp.null_array(self.command.info.resp)


class Waiters:
    """All clients that wait. Each operation costs the same, however many these are.

    A client that waits for very many keys joins and leaves their queues in steps.
    """

    def __init__(self) -> None:
        self._queues: dict[Place, dict[bytes, OrderedDict[Waiter, None]]] = {}  # by line
        self._databases: dict[bytes, set[int]] = {}  # of each key, where someone waits for it
        self._groups: dict[Place, int] = {}  # lines of consumers of groups
        self._by_client: dict[ClientKey, Waiter] = {}
        self._by_id: dict[int, Waiter] = {}
        self._moves = 0
        self._leaving: dict[
            Waiter, None
        ] = {}  # removed, but still in some queues, where they are skipped

    def __contains__(self, place: Place) -> bool:
        return place in self._queues

    def __len__(self) -> int:
        return len(self._by_client)

    def add(self, waiter: Waiter) -> None:
        """Add a client; it joins no queue yet."""
        self._by_client[client_key(waiter.command)] = waiter
        self._by_id[waiter.command.info.id] = waiter
        self._moves += waiter.request.target is not None

    def enqueue(self, waiter: Waiter, keys: Collection[bytes]) -> list[Place]:
        """Append a client to the queues of some of its keys; return the places with a new queue."""
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
        """Remove a client; ``dequeue`` says which queues that ends."""
        del self._by_client[client_key(waiter.command)]
        del self._by_id[waiter.command.info.id]
        self._moves -= waiter.request.target is not None
        self._leaving[waiter] = None

    def dequeue(self, waiter: Waiter) -> list[Place]:
        """Take a removed client out of some of its queues, until it has no places left; return the
        places whose queues are empty.
        """
        ended, name = [], waiter.request.queue
        for place in waiter.places[-AT_ONCE:]:
            lines = self._queues.get(place, {})
            if name not in lines:
                continue  # its other clients have left it, too
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
        """Return the names of a key's queues."""
        return list(self._queues.get(place, ()))

    def queue(self, place: Place, name: bytes) -> Collection[Waiter]:
        """Return the clients in a queue, longest waiting first."""
        line = self._queues.get(place, {}).get(name)
        if line is None:
            return ()
        for waiter in self._leaving:
            line.pop(waiter, None)
        return line

    def all_at(self, place: Place) -> list[Waiter]:
        """Return all clients that wait for a key."""
        return [waiter for name in self.queues(place) for waiter in self.queue(place, name)]

    def first(self, place: Place, name: bytes) -> Waiter | None:
        """Return the first client in a queue."""
        return next(iter(self.queue(place, name)), None)

    def of_key(self, key: bytes) -> list[Place]:
        """Return the places of a key's name that clients wait for."""
        return [(db, key) for db in self._databases.get(key, ())]

    def places(self) -> list[Place]:
        """Return all places that clients wait for."""
        return list(self._queues)

    def count_places(self) -> int:
        """Return how many keys clients wait for."""
        return len(self._queues)

    def count_moves(self) -> int:
        """Return how many of them are moves."""
        return self._moves

    def with_groups(self) -> Collection[Place]:
        """Return the places that consumers of groups wait for."""
        return self._groups.keys()

    def of_client(self, client: ClientKey) -> Waiter | None:
        """Find a client's wait."""
        return self._by_client.get(client)

    def of_id(self, client_id: int) -> Waiter | None:
        """The same, by the id that clients know."""
        return self._by_id.get(client_id)

    def clients(self) -> KeysView[ClientKey]:
        """All clients that wait."""
        return self._by_client.keys()


@dataclass(frozen=True, slots=True)
class WaitedPlaces:
    """The places at one instance that clients wait for."""

    index: int
    waiters: Waiters
    owner: Callable[[int, bytes], int]

    def __call__(self, key: bytes | None) -> list[Place]:
        """Return those of a key; None: all."""
        places = self.waiters.places() if key is None else self.waiters.of_key(key)
        return [place for place in places if self.owner(*place) == self.index]


def client_key(of: _core.Command | _core.Left | _core.Ran) -> ClientKey:
    """Return the key of a client, by what its worker has sent."""
    return (of.worker, of.place, of.generation)
