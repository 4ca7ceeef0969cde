"""Asks one question about each of many keys: of all instances at once, some keys at a time.

So a command that looks for the first of 100,000 keys takes some hundred steps, not 100,000, and
other clients do not wait for long in between.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from threadis import resp
from threadis.coordinator.instances.links import Words

AT_ONCE: Final = 1000  # keys; some milliseconds of an instance's time, and of ours

T = TypeVar("T")
# Sends commands to an instance, and returns their replies.
Ask = Callable[[int, list[Words]], Awaitable[list[bytes]]]


def existence_check(key: bytes) -> Words:
    """Build a command that tells whether a key exists; it counts as no hit or miss."""
    return [b"MEMORY", b"USAGE", key, b"SAMPLES", b"1"]


async def replies(
    wanted: Sequence[T], owner: Callable[[T], int], question: Callable[[T], Words], ask: Ask
) -> AsyncIterator[tuple[T, bytes]]:
    """Ask a question about each; yield all with their replies, in order."""
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        places: dict[int, list[int]] = defaultdict(list)
        for at, one in enumerate(some):
            places[owner(one)].append(at)
        answers = await asyncio.gather(
            *(ask(index, [question(some[at]) for at in ats]) for index, ats in places.items())
        )
        found: dict[int, bytes] = {}
        for ats, answer in zip(places.values(), answers, strict=True):
            found.update(zip(ats, answer, strict=True))
        for at, one in enumerate(some):
            yield one, found[at]


async def present(
    keys: Sequence[bytes], owner: Callable[[bytes], int], ask: Ask
) -> AsyncIterator[bytes]:
    """Yield the keys that exist, in order; one that has just expired may be among them."""
    async for key, reply in replies(keys, owner, existence_check, ask):
        if reply not in resp.NULLS:
            yield key
