"""Questions without a time limit, which end when the instance is stopped or dead."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from threadis.coordinator.instances.links import Kind, Links, UnknownOutcomeError, Words

LOOK = 0.5  # seconds between looks whether the instance still answers
NO_KIND = Kind()
T = TypeVar("T")


async def patiently(links: Links, index: int, question: Coroutine[None, None, T]) -> T:
    """Wait for an instance's answer; UnknownOutcomeError once it is stopped or dead."""
    asked = asyncio.create_task(question)
    try:
        while not (await asyncio.wait([asked], timeout=LOOK))[0]:
            if index not in links.ready():
                what = "does not answer any more; the command may or may not have run"
                raise UnknownOutcomeError(f"ERR instance {index} {what}")
        return asked.result()
    finally:
        asked.cancel()


async def ask_patiently(
    links: Links, index: int, commands: Sequence[Words], *, kind: Kind = NO_KIND
) -> list[bytes]:
    """Ask an instance, as ``patiently``."""
    return await patiently(links, index, links.raw(index, commands, kind=kind, wait=None))
