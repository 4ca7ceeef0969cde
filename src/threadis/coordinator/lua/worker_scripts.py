"""The scripts that workers run by themselves: those that provably keep to their keys.

Not scripts that publish: their messages arrive at the proxy later than the worker's own PUBLISH of
the same client. Not scripts that change the database: workers look for locks in one only.
"""

from threadis import _core
from threadis.coordinator.lua.analysis import Reach, may_select
from threadis.coordinator.lua.sandbox_user import WHOLE_KEYSPACE, rules_without

PUBLISH = b"publish"
TEXT_MOST = 64 * 1024  # bytes; workers run no longer command (``rust/src/commands/scripts.rs``)


class WorkerScripts:
    """Sends them to the workers."""

    def __init__(self, core: _core.Proxy) -> None:
        self.workers = _core.KnownScripts(core, rules_without(WHOLE_KEYSPACE))
        self._allowed: dict[bytes, tuple[bytes, Reach]] = {}  # by SHA1

    def tell(self, name: bytes, body: bytes, found: Reach) -> None:
        """Let workers run a script, or not any more; ``body`` is empty if its text is unknown."""
        may = found is not Reach.ANYTHING and PUBLISH not in body.lower() and not may_select(body)
        wanted = (body, found) if may and body else None
        if wanted == self._allowed.get(name):
            return
        self.forget(name)
        if wanted:
            self._allowed[name] = wanted
            for script in _names(name, body):
                self.workers.learn(script, found is Reach.PREFIXED)

    def forget(self, name: bytes) -> None:
        """Let workers not run a script any more."""
        if name in self._allowed:
            body, _ = self._allowed.pop(name)
            for script in _names(name, body):
                self.workers.forget(script)

    def was_used(self, name: bytes) -> bool:
        """Whether a worker has run a script since this was last asked."""
        body, _ = self._allowed.get(name, (b"", False))
        used = [self.workers.was_used(script) for script in _names(name, body)]
        return any(used)

    def forget_all(self) -> None:
        """SCRIPT FLUSH."""
        self._allowed.clear()
        self.workers.forget_all()


def _names(name: bytes, body: bytes) -> list[bytes]:
    """Return what clients may name a script by."""
    return [name, body] if len(body) < TEXT_MOST else [name]
