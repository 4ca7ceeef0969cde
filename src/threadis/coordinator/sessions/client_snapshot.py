"""All clients at one moment, formatted once for all commands that have asked before."""

import asyncio
from collections.abc import Callable
from typing import Final

from threadis import _core
from threadis.coordinator.sessions.client_filters import Filters

SLICE: Final = 200  # lines that are written at a time: some milliseconds

Write = Callable[[_core.ClientInfo], str]


class ClientSnapshot:
    """The workers' clients at one moment."""

    def __init__(self, clients: list[_core.ClientInfo]) -> None:
        self.clients = clients  # by id
        self._lines: list[bytes] = []

    async def write(self, write: Write) -> None:
        """Format all lines, unless that is done already; other tasks run in between."""
        while len(self._lines) < len(self.clients):
            at = len(self._lines)
            self._lines += [_line(write, one) for one in self.clients[at : at + SLICE]]
            await asyncio.sleep(0)

    def show(self, filters: Filters, asking: _core.ClientInfo, write: Write) -> bytes:
        """Return the lines of matching clients; the line of the asking client is as of now."""
        return b"".join(
            _line(write, asking) if one.id == asking.id else self._lines[at]
            for at, one in enumerate(self.clients)
            if filters.takes(one, asking.id)
        )


def _line(write: Write, client: _core.ClientInfo) -> bytes:
    return write(client).encode() + b"\n"
