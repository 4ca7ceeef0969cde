"""Blocking commands that are just looking for elements; a later write to the same keys waits for
them.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from threadis.coordinator.keys.key_watch import Place

Outcome = asyncio.Future[None]  # done once the command has found something, or waits


class Lookups:
    """Knows which keys are being looked at."""

    def __init__(self) -> None:
        self._by_place: dict[Place, set[Outcome]] = {}
        # For commands with very many keys: these keys, once they are parsed.
        self._wide: dict[Outcome, asyncio.Future[frozenset[Place]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_place or self._wide)

    @contextmanager
    def of_keys(self, places: Collection[Place]) -> Iterator[None]:
        """Look at these places meanwhile."""
        known = asyncio.get_running_loop().create_future()
        for place in places:
            self._by_place.setdefault(place, set()).add(known)
        try:
            yield
        finally:
            known.set_result(None)
            for place in set(places):
                self._by_place[place].discard(known)
                if not self._by_place[place]:
                    del self._by_place[place]

    @contextmanager
    def of_many_keys(self) -> Iterator[asyncio.Future[frozenset[Place]]]:
        """Look at places that are put into the future; until then, possibly at any."""
        loop = asyncio.get_running_loop()
        known, places = loop.create_future(), loop.create_future()
        self._wide[known] = places
        try:
            yield places
        finally:
            if not places.done():
                places.set_result(frozenset())
            known.set_result(None)
            del self._wide[known]

    async def wait_for(self, places: Iterable[Place]) -> None:
        """Wait until earlier lookups of these places have finished."""
        if not self:
            return  # there may be very many
        wanted = set(places)
        coming = [one for place in wanted for one in self._by_place.get(place, ())]
        for known, read in list(self._wide.items()) if wanted else ():
            await asyncio.wait([read])
            if not read.result().isdisjoint(wanted):
                coming.append(known)
        if coming:
            await asyncio.wait(coming)
