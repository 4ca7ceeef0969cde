"""Finds out which of many keys have something for waiting clients, with one question for all.

To try each key would take one message each.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from threadis.catalog.blocking import STREAM
from threadis.coordinator.instances import lookup
from threadis.coordinator.instances.links import LinkError, Words, value
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.waiters import AT_ONCE, GROUP, Waiters

ONE_BY_ONE: Final = 8  # keys that are tried without a question before that

# Asks an instance, in a database, about what no client has asked.
Look = Callable[[int, list[Words], int], Awaitable[list[bytes]]]


async def ready_keys(
    places: Collection[Place], waiters: Waiters, owner: Callable[[int, bytes], int], look: Look
) -> dict[Place, bytes | None]:
    """Return keys, except those that have nothing for their clients; with types, if known."""
    found: dict[Place, bytes | None] = dict.fromkeys(places)
    waited = []
    for at, place in enumerate(found):
        if at % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        if place in waiters:
            waited.append(place)
    if len(waited) <= ONE_BY_ONE:
        return found
    groups = waiters.with_groups()

    def question(place: Place) -> Words:
        return [b"XINFO", b"GROUPS", place[1]] if place in groups else [b"TYPE", place[1]]

    for db in {db for db, _ in waited}:

        async def ask(index: int, questions: list[Words], db: int = db) -> list[bytes]:
            try:
                return await look(index, questions, db)
            except LinkError:
                return [b""] * len(questions)  # an attempt gets the error

        asked = [place for place in waited if place[0] == db]
        infos = lookup.replies(asked, lambda place: owner(*place), question, ask)
        async for place, reply in infos:
            if reply.startswith(b"*"):
                if _have_read_all(waiters.queues(place), reply):
                    del found[place]
                else:
                    found[place] = STREAM
            elif reply.startswith(b"+"):
                found[place], lines = reply[1:-2], waiters.queues(place)
                is_wrong = STREAM in lines and reply != b"+none\r\n"  # what XREAD has to know
                if not (found[place] in lines or is_wrong or place in groups):
                    del found[place]
    return found


def _have_read_all(lines: list[bytes], reply: bytes) -> bool:
    """Whether only consumer groups wait for a stream, and all of them have read everything."""
    infos = value(reply)
    assert isinstance(infos, list)
    groups = (dict(zip(info[::2], info[1::2], strict=True)) for info in infos)
    done = {GROUP + group[b"name"] for group in groups if group.get(b"lag") == 0}
    return STREAM not in lines and all(line in done for line in lines if line.startswith(GROUP))
