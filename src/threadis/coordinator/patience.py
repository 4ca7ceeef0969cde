"""Questions that may take as long as they take, but not longer than there is somebody to answer."""

import asyncio
from collections.abc import Iterable

from threadis.coordinator.fenced import ask as fenced_ask
from threadis.coordinator.links import Kind, Links, UnknownOutcomeError, Words

LOOK = 0.5  # seconds between looks whether the instance still answers

NO_KIND = Kind()


async def ask_patiently(
    links: Links,
    index: int,
    commands: Iterable[Words],
    *,
    kind: Kind = NO_KIND,
    fenced: bool = False,
) -> list[bytes]:
    """Ask an instance; raises UnknownOutcomeError once it is stopped or dead."""

    async def ask() -> list[bytes]:
        if fenced:
            async with links.lease(index, kind) as link:
                return [(await fenced_ask(link, words)).reply for words in commands]
        return await links.raw(index, commands, kind=kind, wait=None)

    asked = asyncio.create_task(ask())
    try:
        while not (await asyncio.wait([asked], timeout=LOOK))[0]:
            if index not in links.ready():
                what = "does not answer any more; the command may or may not have run"
                raise UnknownOutcomeError(f"ERR instance {index} {what}")
        return asked.result()
    finally:
        asked.cancel()
