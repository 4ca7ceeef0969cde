"""Subscriptions of clients, as far as instances must know of them.

Workers deliver what clients publish. What instances publish by themselves reaches us through one
subscription for each name and instance: made before a client's first subscription is confirmed,
dropped with the last one.
"""

import asyncio
from collections import Counter

from threadis import _core
from threadis.coordinator.links import Links
from threadis.coordinator.upstream import KINDS, Upstream


class Pubsub:
    """Knows which names are wanted, and keeps all instances subscribed to them."""

    def __init__(self, core: _core.Proxy, links: Links) -> None:
        self._core = core
        self._subscribed: list[set[bytes]] = [set() for _ in KINDS]  # names with subscribers
        self._pinned: list[Counter[bytes]] = [Counter() for _ in KINDS]  # that soon will have some
        self._tickets: dict[int, _core.Subscribe] = {}
        self._last_ticket = 0
        self._upstreams = [Upstream(index, core, links, self._wanted) for index in links.everyone()]

    async def subscribe(self, request: _core.Subscribe) -> None:
        """Subscribe the instances, then the client."""
        pinned = self._pinned[request.kind]
        pinned.update(request.names)
        try:
            await asyncio.gather(
                *(upstream.ensure(request.kind, request.names) for upstream in self._upstreams)
            )
        finally:  # whatever went wrong with the instances, the client is answered
            self._last_ticket += 1
            self._tickets[self._last_ticket] = request
            self._core.subscribe(request, self._last_ticket)

    def subscribed(self, letter: _core.Subscribed) -> None:
        """A client is subscribed (the registry has said so before), or it is gone."""
        request = self._tickets.pop(letter.ticket, None)
        if request is None:
            return
        pinned = self._pinned[request.kind]
        pinned.subtract(request.names)
        for name in request.names:
            if pinned[name] <= 0:
                del pinned[name]
        self._drop_unwanted(request.kind, request.names)

    def interest(self, letter: _core.Interest) -> None:
        """Take note of a name that got its first subscriber, or lost its last."""
        if letter.is_wanted:
            self._subscribed[letter.kind].add(letter.name)
        else:
            self._subscribed[letter.kind].discard(letter.name)
            self._drop_unwanted(letter.kind, [letter.name])

    async def renew(self, index: int) -> None:
        """Subscribe an instance that is here again to all that is wanted."""
        await self._upstreams[index].ensure()

    def count(self) -> int:
        """How many subscriptions instances have for us."""
        return sum(upstream.count() for upstream in self._upstreams)

    def _wanted(self, kind: int) -> set[bytes]:
        return self._subscribed[kind] | self._pinned[kind].keys()

    def _drop_unwanted(self, kind: int, names: list[bytes]) -> None:
        wanted = self._wanted(kind)
        gone = [name for name in dict.fromkeys(names) if name not in wanted]
        for upstream in self._upstreams:
            upstream.drop(kind, gone)
