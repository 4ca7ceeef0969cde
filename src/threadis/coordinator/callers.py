"""Who has called a script: servers log the commands inside with the name of our connection.

So that has a name of its own while a script runs. Redis 7.0 does not tell even that: there the
commands of a script are not in the log.
"""

import itertools
from collections import OrderedDict
from typing import Final

from threadis import _core
from threadis.coordinator.links import Words

PREFIX: Final = b"threadis-script-"
KEPT: Final = 10_000  # calls; what a server has logged longer ago is not looked for

Caller = tuple[bytes, bytes]  # address, name


class Callers:
    """The latest calls, by the name that our connection had."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._known: OrderedDict[bytes, Caller] = OrderedDict()

    def begin(self, info: _core.ClientInfo) -> bytes:
        """Take note of a call; the name."""
        name = PREFIX + b"%d" % next(self._numbers)
        self._known[name] = (info.address.encode(), info.name)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return name

    def forget(self, name: bytes) -> None:
        """Take note that a call came to nothing, and will be made again."""
        self._known.pop(name, None)

    def find(self, name: bytes) -> Caller | None:
        """Whose call it was."""
        return self._known.get(name)


def named(name: bytes = b"") -> Words:
    """Build the command that names a connection."""
    return [b"CLIENT", b"SETNAME", name]
