"""How long a reply is waited for: no longer than its instance is at work on it."""

import asyncio
from typing import Final

from threadis.system.process import Activity, activity

LOOK: Final = 0.5  # seconds between looks at an instance that is late
LOOKS_MOST: Final = 240  # then it is enough, whatever it does


class Deadline:
    """Makes a reader give up, unless the reply has come by then or the instance is at work on it.

    A copy of a large key takes seconds, and on a busy machine many. So once the time is up, the
    kernel is asked, as in ``health``, whether the instance is stopped or busy.
    """

    __slots__ = ("_before", "_handle", "_looks", "_loop", "_pid", "_reader")

    def __init__(self, reader: asyncio.StreamReader, pid: int, wait: float) -> None:
        self._reader, self._pid, self._loop = reader, pid, asyncio.get_running_loop()
        self._before: Activity | None = None
        self._looks = LOOKS_MOST
        self._handle: asyncio.Handle = self._loop.call_later(wait, self._is_up)

    def cancel(self) -> None:
        """Stop: the reply has come, or is not wanted any more."""
        self._handle.cancel()

    def _is_up(self) -> None:
        now = activity(self._pid)
        is_stopped = self._before is not None and now.is_stopped(self._before)
        self._before = now
        self._looks -= 1
        if is_stopped or not self._looks:
            # If the loop itself was late, a reply may have come that was not read yet:
            # it is read in the turn that follows, before this.
            self._handle = self._loop.call_soon(self._reader.set_exception, TimeoutError())
        else:
            self._handle = self._loop.call_later(LOOK, self._is_up)
