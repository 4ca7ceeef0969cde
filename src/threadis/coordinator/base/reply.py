"""What a handler returns to the worker: the reply, and what changes in the client's session."""

from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass

from threadis import _core, resp
from threadis.coordinator.base.offload import LARGE, PIECE, offload

INTERNAL_ERROR = resp.error("ERR threadis: internal error, see the log")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in the client's protocol; fields that are None leave the session as it is."""

    data: bytes
    db: int | None = None
    watching: bool | None = None
    monitoring: bool = False  # it sees every command from now on


HandlerResult = bytes | Reply | None  # None: it comes later
Handler = Callable[[_core.Command], Awaitable[HandlerResult]]


async def send(core: _core.Proxy, command: _core.Command, reply: HandlerResult) -> None:
    """Send a reply to the worker, if there is one."""
    if reply is not None:
        answer = reply if isinstance(reply, Reply) else Reply(reply)
        size = LARGE if len(answer.data) > PIECE else 0
        await offload(size, core.reply, command, *astuple(answer))
