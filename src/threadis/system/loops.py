"""Event loops that survive a failed system call."""

import asyncio
import logging
import selectors
import time
from typing import Any

log = logging.getLogger(__name__)

PAUSE = 0.01  # seconds, so that a call that fails again and again does not keep a core busy

QUIET = 10.0  # seconds between two lines in the log about it


class Selector(selectors.EpollSelector):
    """Waits for events; if the kernel call fails, there are none this time."""

    _told = float("-inf")  # when we said so last, in seconds

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait; events that are missed now are returned next time."""
        try:
            return super().select(timeout)
        except OSError as error:
            now = time.monotonic()
            if now - self._told > QUIET:
                self._told = now
                log.warning("waiting for events failed: %s; trying again", error)
            time.sleep(PAUSE)
            return []


def new() -> asyncio.AbstractEventLoop:
    """Create a loop."""
    return asyncio.SelectorEventLoop(Selector())
