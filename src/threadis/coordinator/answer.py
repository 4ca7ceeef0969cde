"""What a handler tells a worker: the reply, and what changes in the client's session."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from threadis import _core, resp

INTERNAL_ERROR = resp.error("ERR threadis: internal error, see the log")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply in the client's protocol; None leaves the session as it is."""

    data: bytes
    db: int | None = None
    watching: bool | None = None
    monitoring: bool = False  # it sees every command from now on


Reply = bytes | Answer | None  # None: it comes later
Handler = Callable[[_core.Command], Awaitable[Reply]]
