"""Clients' subscriptions, as far as instances must know of them.

Workers deliver what clients publish. What instances publish by themselves comes through one
subscription for each name and instance: made before a client's first subscription is confirmed,
dropped with the last one.
"""

import asyncio
from collections import Counter
from typing import Final

import hiredis

from threadis import _core
from threadis.coordinator.instances.links import Links
from threadis.coordinator.instances.subscriptions import KINDS, InstanceSubscriptions
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.keyspace_events import Events

# By kind: names that are dropped at once. Servers look through all patterns for each.
DROPPED: Final = (500, 50, 500)
BREATH: Final = 0.005  # seconds between two such batches
EVENTS: Final = b"notify-keyspace-events"
UNTIMELY: Final = b"KExe"  # keys that expire or are evicted; K and E are no classes


def event_interest(flags: bytes) -> int:
    """Return, as a worker's number, what the events of these classes are about: nothing, expiry and
    eviction, changes by commands, or also keys that were not found.
    """
    if not flags:
        return 0
    if b"m" in flags:
        return 3
    return 2 if set(flags) - set(UNTIMELY) else 1


class Pubsub:
    """Knows which names are wanted, and keeps all instances subscribed to them."""

    def __init__(self, core: _core.Proxy, links: Links) -> None:
        self._core, self._links = core, links
        self._subscribed: list[set[bytes]] = [set() for _ in KINDS]  # names with subscribers
        self._pinned: list[Counter[bytes]] = [Counter() for _ in KINDS]  # that will have some soon
        self._tickets: dict[int, _core.Subscribe] = {}  # until the clients have the confirmation
        self._waiting: dict[int, _core.Subscribe] = {}  # until instances are subscribed
        self._is_busy = False  # a script runs too long
        self._last_ticket = 0
        self._tasks = Tasks()
        self.events = Events(core, self._hear_all)
        upstreams = _core.EventFeeds(core)
        self._by_instance = [
            InstanceSubscriptions(index, upstreams, links, self._wanted)
            for index in links.all_instances()
        ]

    async def look(self, index: int | None = None) -> None:
        """Read from an instance which keyspace events are published."""
        index = self._links.any_ready() if index is None else index
        reply = await self._links.call(index, b"CONFIG", b"GET", EVENTS)
        if not isinstance(reply, hiredis.ReplyError):
            self.events.flags = reply[1]
            self.events.are_enabled = bool(reply[1])
            self._core.set_limit("events", event_interest(reply[1]))

    async def _hear_all(self) -> None:
        await asyncio.gather(*(subscriptions.drain() for subscriptions in self._by_instance))

    async def subscribe(self, request: _core.Subscribe) -> None:
        """Subscribe the instances, then the client; a script that runs long is not waited for."""
        self._last_ticket += 1
        ticket = self._last_ticket
        self._waiting[ticket] = request
        self._pin(request)
        upstreams = () if self._is_busy else self._by_instance
        try:
            await asyncio.gather(
                *(
                    subscriptions.subscribe(request.kind, request.names)
                    for subscriptions in upstreams
                )
            )
        finally:  # whatever happens with the instances, the client is answered
            self._answer(ticket, is_refused=not upstreams)
            self._unpin(request)

    def _answer(self, ticket: int, *, is_refused: bool) -> None:
        if request := self._waiting.pop(ticket, None):
            self._tickets[ticket] = request
            self._pin(request)
            self._core.subscribe(request, ticket, is_refused)

    def set_busy(self, busy: bool) -> None:
        """While a script runs too long, instances are not waited for."""
        self._is_busy = busy
        for ticket in list(self._waiting) if busy else ():
            self._answer(ticket, is_refused=True)

    def subscribed(self, letter: _core.Subscribed) -> None:
        """A client's subscription is confirmed, or the client is gone."""
        if request := self._tickets.pop(letter.ticket, None):
            self._unpin(request)

    def _pin(self, request: _core.Subscribe) -> None:
        self._pinned[request.kind].update(request.names)

    def _unpin(self, request: _core.Subscribe) -> None:
        pinned, names = self._pinned[request.kind], request.names
        for name in names:
            if pinned[name] > 1:
                pinned[name] -= 1
            else:
                del pinned[name]
        self._drop_unwanted(request.kind, names)

    def interest(self, letter: _core.Interest) -> None:
        """Note names that got their first subscriber, or lost their last one."""
        if letter.is_wanted:
            self._subscribed[letter.kind].update(letter.names)
        else:
            self._subscribed[letter.kind].difference_update(letter.names)
            self._drop_unwanted(letter.kind, letter.names)

    def said(self, letter: _core.Said) -> None:
        """Handle what an instance sends besides messages."""
        self._by_instance[letter.instance].receive(letter)

    async def renew(self, index: int) -> None:
        """Subscribe an instance that came back to all that is wanted."""
        await self._by_instance[index].subscribe()

    def count(self) -> int:
        """Return how many subscriptions instances have for us."""
        return sum(subscriptions.count() for subscriptions in self._by_instance)

    def _wanted(self, kind: int) -> set[bytes]:
        return self._subscribed[kind] | self._pinned[kind].keys()

    def _drop_unwanted(self, kind: int, names: list[bytes]) -> None:
        if len(names) <= DROPPED[kind]:
            self._drop(kind, names)
        else:
            self._tasks.start(self._drop_in_batches(kind, names), "the end of subscriptions")

    async def _drop_in_batches(self, kind: int, names: list[bytes]) -> None:
        """Unsubscribe in batches, with pauses for other commands."""
        for at in range(0, len(names), DROPPED[kind]):
            self._drop(kind, names[at : at + DROPPED[kind]])
            await asyncio.sleep(BREATH)

    def _drop(self, kind: int, names: list[bytes]) -> None:
        subscribed, pinned = self._subscribed[kind], self._pinned[kind]
        gone = [n for n in dict.fromkeys(names) if n not in subscribed and n not in pinned]
        for subscriptions in self._by_instance:
            subscriptions.unsubscribe(kind, gone)
