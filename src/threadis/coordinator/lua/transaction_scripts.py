"""Which scripts exist at each place of a transaction.

EVAL and SCRIPT LOAD load one, SCRIPT FLUSH removes all: from their place in the order on, and only
if the transaction runs. Other clients do not see them before that, and neither do earlier commands
of the transaction.
"""

from collections.abc import Mapping
from typing import Final

from threadis import resp
from threadis.coordinator.base.databases import is_flush_syntax
from threadis.coordinator.instances.links import Words
from threadis.coordinator.lua.library import Library
from threadis.coordinator.lua.script_call import ChangedError, declared_keys, sha1

EVALS: Final = (b"eval", b"eval_ro")


class TransactionScripts:
    """The scripts that a transaction has loaded so far, and those from before."""

    def __init__(self, library: Library, will_load: Mapping[bytes, int] | None = None) -> None:
        """``will_load``: the scripts that its write loads, each with the last such place."""
        self._library, self._will_load = library, will_load or {}
        self._loaded: dict[bytes, bytes] = {}
        self._is_flushed = False
        self._found: dict[bytes, bytes] = {}  # by the library, when it was asked
        self._missing: set[bytes] = set()
        self.replies: dict[int, bytes] = {}  # by place: of what asks for scripts, if known already

    async def find(self, name: bytes) -> bytes | None:
        """Return a script; None if it does not exist, empty if only the servers have its text."""
        if name in self._loaded or self._is_flushed:
            return self._loaded.get(name)
        if name not in self._found:
            self._found[name] = self._library.body(name)
            if not await self._library.has(name):
                self._missing.add(name)
        return None if name in self._missing else self._found[name]

    def check(self) -> None:
        """Raise ChangedError if scripts were loaded or flushed meanwhile."""
        if any(self._library.body(name) != body for name, body in self._found.items()):
            raise ChangedError

    async def answer(self, at: int, words: Words) -> None:
        """Answer a command about scripts that would run too late: after the write."""
        what = words[1].lower() if words[0].lower() == b"script" else b""
        names = [name.lower() for name in words[2:]]
        if what not in (b"exists", b"show"):
            return
        later = [name for name in names if self._will_load.get(name, -1) > at]
        if all([await self.find(name) is not None for name in later]):
            return
        found = [await self.find(name) for name in names]
        if what == b"exists":
            self.replies[at] = resp.array([resp.integer(one is not None) for one in found])
        elif found[0] is None:
            self.replies[at] = await self._library.no_script()

    def advance(self, words: Words) -> None:
        """Go on to the next command."""
        family = words[0].lower()
        if family in EVALS and declared_keys(words) is not None:
            self._loaded[sha1(words[1])] = words[1]
        elif family == b"script":
            match words[1].lower():
                case b"load":
                    self._loaded[sha1(words[2])] = words[2]
                case b"flush" if is_flush_syntax(words[2:]):
                    self._loaded.clear()
                    self._is_flushed = True
