"""Long computations in threads, and long copies piece by piece, so that other clients do not wait.

Python copies bytes with its lock held, and meanwhile the loop serves nobody: a gigabyte a second,
or less. So copies are made piece by piece. Only ``bytes.join`` releases the lock.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, ParamSpec, TypeVar

LARGE: Final = 2000  # commands or keys: some ten milliseconds; a thread costs a tenth of one
PIECE: Final = 1024 * 1024  # bytes that are copied at once: less than a millisecond

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def offload(
    size: int,
    function: Callable[Arguments, Result],
    *args: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """Call a function; in a thread of its own if ``size`` is large, so that other tasks go on.

    It may read only what nothing changes meanwhile.
    """
    if size < LARGE:
        return function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)


async def join(parts: Sequence[bytes]) -> bytes:
    """Join parts."""
    if sum(map(len, parts)) <= PIECE:
        return b"".join(parts)
    return await asyncio.to_thread(b"".join, parts)


async def join_pieces(pieces: Iterable[bytes]) -> bytes:
    """Join pieces that are produced one by one."""
    found = []
    for piece in pieces:
        found.append(piece)
        await asyncio.sleep(0)
    return await join(found)


async def slice_bytes(data: bytes, begin: int, end: int) -> bytes:
    """Return a part of a byte string."""
    if end - begin <= PIECE:
        return data[begin:end]
    return await join_pieces(data[at : min(at + PIECE, end)] for at in range(begin, end, PIECE))
