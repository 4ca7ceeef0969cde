"""The scripts that all instances have; a restarted instance gets them again.

Scripts of EVAL make room for newer ones, as on a server that evicts scripts: by number where our
servers do so, and always by bytes. Scripts of SCRIPT LOAD stay.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

EVICTING_COUNT: Final = 500  # scripts of EVAL, as servers that evict them keep
COUNT: Final = 10_000  # the same where servers keep all
EVAL_BYTES: Final = 64 * 1024 * 1024  # their bodies, here and on each instance
LOAD_BYTES: Final = 256 * 1024 * 1024  # the same of SCRIPT LOAD
OVERHEAD: Final = 200  # bytes of a script besides its body


class ScriptCache:
    """Scripts by SHA1. ``is_used``: whether a worker has run one since this was last asked."""

    def __init__(self, is_used: Callable[[bytes], bool]) -> None:
        self._is_used = is_used
        self._loaded: dict[bytes, bytes] = {}
        self._evaluated: OrderedDict[bytes, bytes] = OrderedDict()  # the newest last
        self._loaded_bytes = self._evaluated_bytes = 0
        self._most = COUNT
        self.evicted = 0

    def evicts_by_count(self, does: bool) -> None:
        """Set whether the servers evict scripts of EVAL."""
        self._most = EVICTING_COUNT if does else COUNT

    def __len__(self) -> int:
        return len(self._loaded) + len(self._evaluated)

    def all(self) -> list[bytes]:
        """Return all scripts."""
        return [*self._loaded.values(), *self._evaluated.values()]

    def total(self) -> int:
        """Return their size in bytes."""
        return self._loaded_bytes + self._evaluated_bytes

    def use(self, name: bytes) -> bytes:
        """Return a script and mark it as the newest; empty if it is not there."""
        if name in self._evaluated:
            self._evaluated.move_to_end(name)
        return self._loaded.get(name) or self._evaluated.get(name, b"")

    def may_load(self, name: bytes, script: bytes) -> bool:
        """Whether SCRIPT LOAD has room for another script."""
        return name in self._loaded or self._loaded_bytes + cost(script) <= LOAD_BYTES

    def load(self, name: bytes, script: bytes) -> None:
        """Keep a script until SCRIPT FLUSH."""
        if old := self._evaluated.pop(name, b""):
            self._evaluated_bytes -= cost(old)
        if name not in self._loaded:
            self._loaded[name] = script
            self._loaded_bytes += cost(script)

    def evaluate(self, name: bytes, script: bytes) -> list[tuple[bytes, bytes]]:
        """Keep a script of EVAL; return the evicted ones, possibly itself."""
        self._evaluated[name] = script
        self._evaluated_bytes += cost(script)
        gone, spared = [], 0
        while len(self._evaluated) > self._most or self._evaluated_bytes > EVAL_BYTES:
            oldest, body = self._evaluated.popitem(last=False)
            if spared < len(self._evaluated) and self._is_used(oldest):
                self._evaluated[oldest] = body
                spared += 1
                continue
            self._evaluated_bytes -= cost(body)
            gone.append((oldest, body))
        self.evicted += len(gone)
        return gone

    def clear(self) -> None:
        """Forget all."""
        self._loaded.clear()
        self._evaluated.clear()
        self._loaded_bytes = self._evaluated_bytes = 0


def cost(script: bytes) -> int:
    """Return how many bytes a script counts."""
    return len(script) + OVERHEAD
