"""All clients at one moment, for whoever has asked for them before: written out once."""

import asyncio
from collections.abc import Callable
from typing import Final

from threadis import _core
from threadis.coordinator.sessions.client_filters import Filters

SLICE: Final = 200  # lines that are written at a time: some milliseconds

Write = Callable[[_core.ClientInfo], str]


class ClientSnapshot:
    """What the workers have said of their clients."""

    def __init__(self, clients: list[_core.ClientInfo]) -> None:
        self.clients = clients  # by id
        self._lines: list[bytes] = []

    async def write(self, write: Write) -> None:
        """Write all lines, unless they are written already; others' work goes on meanwhile."""
        while len(self._lines) < len(self.clients):
            at = len(self._lines)
            self._lines += [_line(write, one) for one in self.clients[at : at + SLICE]]
            await asyncio.sleep(0)

    def show(self, filters: Filters, asking: _core.ClientInfo, write: Write) -> bytes:
        """The lines of those who pass, once they are written; that of who asks is as of now."""
        return b"".join(
            _line(write, asking) if one.id == asking.id else self._lines[at]
            for at, one in enumerate(self.clients)
            if filters.takes(one, asking.id)
        )


def _line(write: Write, client: _core.ClientInfo) -> bytes:
    return write(client).encode() + b"\n"
