"""Long replies, read and built piece by piece, so that other clients do not wait."""

from collections.abc import Sequence
from typing import Any, Final

from threadis import _core
from threadis.coordinator.base.offload import PIECE, join, join_pieces, offload, slice_bytes
from threadis.coordinator.instances import links

WORD: Final = 10  # bytes of an element of an array, at the least
OFTEN: Final = 1024  # bytes of an element: an array of such is cut in a thread


async def elements(reply: bytes) -> list[bytes]:
    """As ``_core.elements``."""
    if len(reply) <= PIECE:
        return _core.elements(reply)
    if len(reply) < OFTEN * int(reply[1 : reply.index(b"\r")]):
        return await offload(len(reply), _core.elements, reply)
    found = await offload(len(reply), _core.bounds, reply)
    return [await slice_bytes(reply, begin, end) for begin, end in found]


async def value(reply: bytes) -> Any:
    """As ``links.value``, of strings and of arrays of them."""
    if len(reply) <= PIECE:
        size = 0 if reply.startswith(b"$") else len(reply) // WORD
        return await offload(size, links.value, reply)
    if reply.startswith(b"$"):
        return await slice_bytes(reply, reply.index(b"\n") + 1, len(reply) - 2)
    if reply.startswith((b"*", b"~")) and len(reply) >= OFTEN * int(reply[1 : reply.index(b"\r")]):
        return await values(await elements(reply))
    return await offload(len(reply), links.value, reply)


async def values(replies: Sequence[bytes]) -> list[Any]:
    """As ``links.values``."""
    if max(map(len, replies), default=0) <= PIECE:
        return await offload(len(replies), links.values, replies)
    return [await value(reply) for reply in replies]


async def array(parts: Sequence[bytes]) -> bytes:
    """As ``resp.array``."""
    return await join([b"*%d\r\n" % len(parts), *parts])


async def bulk(data: bytes) -> bytes:
    """As ``resp.bulk``."""
    return await join([b"$%d\r\n" % len(data), data, b"\r\n"])


async def complete(command: _core.Command) -> None:
    """Put the long arguments of a command in place; they came in pieces."""
    for words, at, pieces in command.long:
        words[at] = await join_pieces(pieces)
