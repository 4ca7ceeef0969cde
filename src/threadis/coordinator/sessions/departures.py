"""Clients that leave while the coordinator runs a command of theirs.

A client that hangs up while its command waits is closed without a reply, and what it has sent after
that is not run, as on the stock server: an empty reply tells the worker.
"""

import asyncio
import select
from collections import Counter
from typing import Final

from threadis import _core
from threadis.coordinator.keys.waiters import ClientKey, client_key

LEFT: Final = b""  # the reply to a command whose client has left while it waited


class _Stay:
    """A client, while the coordinator runs its command."""

    __slots__ = ("has_hung_up", "is_gone")

    def __init__(self) -> None:
        self.has_hung_up = asyncio.Event()
        self.is_gone = False


class Departures:
    """Knows which clients with a running command have left."""

    def __init__(self) -> None:
        self._stays: dict[ClientKey, _Stay] = {}
        self.waiting: Counter[ClientKey] = Counter()  # clients in WAIT and WAITAOF

    def begin(self, command: _core.Command) -> None:
        """A command has come; its client may leave from now on."""
        self._stays[client_key(command)] = _Stay()

    def end(self, command: _core.Command) -> None:
        """It waits for keys, or is answered."""
        self._stays.pop(client_key(command), None)

    def left(self, client: ClientKey, *, is_gone: bool) -> None:
        """A client has hung up, or is gone."""
        if stay := self._stays.get(client):
            stay.is_gone |= is_gone
            stay.has_hung_up.set()

    def has_left(self, command: _core.Command) -> bool:
        """Whether a command's client has hung up, or is gone."""
        stay = self._stays.get(client_key(command))
        return stay is not None and stay.has_hung_up.is_set()

    def is_gone(self, command: _core.Command) -> bool:
        """Whether the client will not even read a reply."""
        stay = self._stays.get(client_key(command))
        return stay is not None and stay.is_gone

    async def stays(self, command: _core.Command, seconds: float | None) -> bool:
        """Wait so long (None: for ever), or until a client has left; False if it has."""
        client = client_key(command)
        if stay := self._stays.get(client):
            self.waiting[client] += 1
            try:
                async with asyncio.timeout(seconds):
                    await stay.has_hung_up.wait()
            except TimeoutError:
                pass
            finally:
                self.waiting[client] -= 1
                if not self.waiting[client]:
                    del self.waiting[client]
        return not self.has_left(command)


def has_hung_up(command: _core.Command) -> bool:
    """Whether a client's side of its connection has ended; no worker need have noticed."""
    poll = select.poll()
    poll.register(command.info.fd, select.POLLRDHUP)
    return bool(poll.poll(0))
