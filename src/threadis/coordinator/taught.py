"""The scripts that workers run by themselves: which ones, and what becomes of one that strays.

A worker takes what a run here has shown to keep to its keys (``rust/src/scripts.rs``), but nothing
that publishes: its messages come to us first, and later than the worker's own PUBLISH of the same
client.
"""

from threadis import _core
from threadis.coordinator.guard import WHOLE_KEYSPACE, Guard, Refusals, rules_without
from threadis.coordinator.known import Known

PUBLISH = b"publish"


class Taught:
    """Tells the workers."""

    def __init__(self, core: _core.Proxy) -> None:
        self.workers = _core.KnownScripts(core, rules_without(WHOLE_KEYSPACE))
        self._taught: dict[bytes, tuple[bytes, bool]] = {}  # SHA1 → script, whether it is local

    def tell(self, name: bytes, body: bytes, known: Known) -> None:
        """Let workers run a script, or no more; ``body`` is empty if nobody has it any more."""
        may = known.declares and body and PUBLISH not in body.lower()
        wanted = (body, known.is_local) if may else None
        if wanted == self._taught.get(name):
            return
        self.forget(name)
        if wanted:
            self._taught[name] = wanted
            for script in (name, body):
                self.workers.learn(script, known.is_local)

    def forget(self, name: bytes) -> None:
        """Let no worker run a script."""
        if name in self._taught:
            body, _ = self._taught.pop(name)
            for script in (name, body):
                self.workers.forget(script)

    def forget_all(self) -> None:
        """Take note of SCRIPT FLUSH."""
        self._taught.clear()
        self.workers.forget_all()

    def refusals(self, letter: _core.Strayed) -> Refusals:
        """Read what a worker's script was refused."""
        guard = Guard()
        guard.name = letter.guard
        return guard.refusals(letter.log)
