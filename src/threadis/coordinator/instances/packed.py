"""Encodes commands in pieces: there may be very many, or very long ones."""

from collections.abc import Iterator, Sequence
from typing import Final

from threadis import _core
from threadis.coordinator.base.offload import LARGE

# Bytes that are written at once: what the socket does not accept is copied.
WRITE_MOST: Final = 256 * 1024

Packable = Sequence[bytes | _core.Packed]  # a command, whose words may be packed already


def parts(first: _core.Packed, commands: Sequence[Packable]) -> Iterator[bytes]:
    """Yield what to write; LARGE commands at a time are encoded, ``first`` has the first ones."""
    for begin in range(0, len(commands), LARGE):
        packed = _core.Packed(commands[begin : begin + LARGE]) if begin else first
        for at in range(0, len(packed), WRITE_MOST):
            yield packed.part(at, WRITE_MOST)


def pack(*commands: Packable) -> bytes:
    """Encode commands."""
    return bytes(_core.Packed(commands))
