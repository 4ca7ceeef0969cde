"""Replies of EXEC."""

from typing import Final

from threadis import _core
from threadis.coordinator.instances import long_replies

ABORTED: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"

REASON: Final = b"-EXECABORT Transaction discarded because of: "  # what is refused follows


def exec_abort(why: bytes) -> bytes:
    """Build EXEC's error from the error that caused it."""
    if why.startswith(b"-EXECABORT") or not why.startswith(b"-"):
        return why
    return REASON + why[1:]


async def with_denials(reply: bytes, denied: dict[int, bytes]) -> bytes:
    """Insert the replies of denied commands into EXEC's reply; an error stays as it is."""
    if not denied or not reply.startswith(b"*") or reply.startswith(b"*-"):
        return reply
    parts = await long_replies.elements(reply)
    for at in sorted(denied):
        parts.insert(at, denied[at])
    return await long_replies.array(parts)


def null_exec(command: _core.Command) -> bytes:
    """Return EXEC's reply if a watched key has changed."""
    return b"_\r\n" if command.info.resp == 3 else b"*-1\r\n"
