"""One call of a script or function."""

import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from threadis import _core
from threadis.coordinator.base.rights import Rights
from threadis.coordinator.instances.links import Kind, Words


class ChangedError(Exception):
    """A function was replaced meanwhile; nothing was run."""


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One script to run."""

    name: bytes  # SHA1 or function
    words: Words
    keys: list[bytes]
    db: int
    kind: Kind
    writes: bool
    within: int | None
    rights: Rights | None  # of its user; None: everything
    info: _core.ClientInfo
    body: bytes  # its text, or that of the function's library; empty if unknown
    generation: int | None = None  # of functions, when the library was found; None: no function
    ending: AsyncExitStack | None = None  # closed before its client is answered; None: in EXEC

    @property
    def is_function(self) -> bool:
        """Whether it is a function of a library."""
        return self.generation is not None


def declared_keys(args: Sequence[bytes]) -> list[bytes] | None:
    """Return KEYS of a script; None if the number of keys is wrong."""
    if len(args) < 3 or not args[2].isdigit():
        return None
    count = int(args[2])
    return list(args[3 : 3 + count]) if count <= len(args) - 3 else None


def sha1(script: bytes) -> bytes:
    """Return the name that servers give a script."""
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
