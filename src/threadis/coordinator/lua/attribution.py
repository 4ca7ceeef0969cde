"""Finds the client of a command that a script ran.

Servers report such a command with the name of our connection, so the connection has a unique name
while a script runs. SLOWLOG finds the client by it (Redis 7.0 does not log commands of scripts),
MONITOR finds what to show.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from threadis import _core, own_names
from threadis.coordinator.instances.links import Words
from threadis.coordinator.sessions.monitor import Monitors

KEPT: Final = 10_000  # calls; older ones are not found any more
# What an undoable script runs besides its own commands.
OF_UNDO: Final = frozenset(
    b"DUMP RESTORE PEXPIRETIME TYPE STRLEN LLEN ZCARD SCARD HLEN XLEN".split()
)

Caller = tuple[bytes, bytes]  # address, name


class Attribution:
    """The latest calls, by the connection's name."""

    def __init__(self, monitors: Monitors) -> None:
        self._numbers = itertools.count(1)
        self._known: OrderedDict[bytes, tuple[Caller, bool]] = OrderedDict()
        self._monitors = monitors
        self.all_is_logged = False  # SLOWLOG has every command

    @property
    def are_watched(self) -> bool:
        """Whether a client sees each command that a script runs."""
        return self.all_is_logged or self._monitors.is_on

    def begin(self, info: _core.ClientInfo, *, can_be_undone: bool = False) -> bytes:
        """Register a call; return the connection's name."""
        name = own_names.SCRIPT + b"%d" % next(self._numbers)
        self._known[name] = ((info.address.encode(), info.name), can_be_undone)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return name

    def settle(self, name: bytes, index: int, db: int, *, counts: bool) -> None:
        """Note that a call has ended, in its client's database; or that it does not count."""
        if not counts:
            self._known.pop(name, None)
        number = int(name.removeprefix(own_names.SCRIPT))
        self._monitors.settle(index, number, db if counts else None)

    def in_order(
        self, command: _core.Command, places: Sequence[int]
    ) -> AbstractAsyncContextManager[None]:
        """Show what the scripts at these places of a transaction run after each of them."""
        return self._monitors.in_order(command, places)

    def find(self, name: bytes, command: bytes) -> Caller | None:
        """Return the client whose script has run a command; None if it was ours."""
        caller, can_be_undone = self._known.get(name, (None, False))
        return None if can_be_undone and command.upper() in OF_UNDO else caller


def setname(name: bytes = b"") -> Words:
    """Build the command that names a connection."""
    return [b"CLIENT", b"SETNAME", name]
