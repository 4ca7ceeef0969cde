"""What only the coordinator knows of clients: whose command waits, and who watches keys.

That a watched key has changed is known by the instance, for the connection that watches it.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from threadis import _core
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.keys.waiters import ClientKey
from threadis.coordinator.keys.watched_keys import WatchedKeys

PATIENCE: Final = (
    0.5  # seconds for an instance to list our connections; otherwise they count as clean
)
LINE: Final = re.compile(rb"^id=(\d+) .*? flags=(\w+)", re.MULTILINE)


class BlockedCommands(Protocol):
    """Commands that wait in the coordinator."""

    def clients(self) -> Collection[ClientKey]:
        """Return their clients."""


class ClientStates:
    """Completes what workers know of their clients."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self.watches: Mapping[ClientKey, WatchedKeys] = {}  # see transactions.Transactions
        self.waits: Sequence[BlockedCommands] = ()

    async def complete(self, clients: list[_core.ClientInfo]) -> list[_core.ClientInfo]:
        """Add what is known here."""
        blocked = {client for wait in self.waits for client in wait.clients()}
        watches = {one.place: self.watches.get(one.place) for one in clients if self.watches}
        found = await self._watch_states(
            {place: watch for place, watch in watches.items() if watch}
        )
        return [
            one.but(one.place in blocked, *found.get(one.place, (0, False)))
            if one.place in found or one.place in blocked
            else one
            for one in clients
        ]

    async def _watch_states(
        self, watches: Mapping[ClientKey, WatchedKeys]
    ) -> dict[ClientKey, tuple[int, bool]]:
        """Return how many keys each client watches, and whether one has changed: then it is 0."""
        ids: dict[int, set[int]] = defaultdict(set)
        for watch in watches.values():
            for link in watch.links():
                ids[link.index].add(link.id)
        lost = dict(
            zip(
                ids,
                await asyncio.gather(*(self._dirty_links(*one) for one in ids.items())),
                strict=True,
            )
        )
        found = {}
        for client, watch in watches.items():
            is_dirty = any(link.id in lost[link.index] for link in watch.links())
            found[client] = (0 if is_dirty else len(watch.keys), is_dirty)
        return found

    async def _dirty_links(self, index: int, ids: Iterable[int]) -> set[int]:
        """Return which of our connections to an instance watch a changed key, or are gone."""
        wanted = set(ids)
        try:
            async with asyncio.timeout(PATIENCE):
                words = [b"%d" % one for one in sorted(wanted)]
                reply = await self._links.call_or_fail(index, b"CLIENT", b"LIST", b"ID", *words)
        except (LinkError, TimeoutError):
            return set()
        return wanted - {int(number) for number, flags in LINE.findall(reply) if b"d" not in flags}
