"""Connecting to an instance's Unix socket."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

AGAIN: Final = 0.05  # seconds between attempts to connect where too many do
ATTEMPTS: Final = 100


async def connect(path: str, is_there: Callable[[], bool]) -> socket.socket:
    """Connect, as long as the instance ``is_there``; OSError if that fails.

    There is no time limit: the kernel answers at once, while we may be late ourselves. If too many
    connect at the same moment, it returns EAGAIN, which asyncio would take for success.
    """
    attempts = ATTEMPTS
    while True:
        end = socket.socket(socket.AF_UNIX)
        end.setblocking(False)
        try:
            end.connect(path)
        except BlockingIOError:
            end.close()
            attempts -= 1
            if not attempts or not is_there():
                raise
        except BaseException:
            end.close()
            raise
        else:
            return end
        await asyncio.sleep(AGAIN)
