"""CLIENT PAUSE and UNPAUSE: the workers hold commands back, the clock is here."""

import asyncio
import time
from typing import Final

from threadis import _core, resp
from threadis.coordinator.numbers import integer

NOTHING: Final = 0
MODES: Final = {b"write": 1, b"all": 2}
NEVER: Final = 2**63 - 1  # milliseconds


class Pause:
    """The one pause of all clients."""

    def __init__(self, core: _core.Proxy, *, takes_more: bool) -> None:
        self._core = core
        self._takes_more = takes_more  # Valkey ignores the mode if more arguments follow
        self._what = NOTHING
        self._end = 0.0  # monotonic seconds
        self._timer: asyncio.TimerHandle | None = None

    async def pause(self, command: _core.Command) -> bytes:
        """CLIENT PAUSE milliseconds [WRITE|ALL]; a stricter or longer pause is never eased."""
        if len(command.args) > 4 and not self._takes_more:
            return resp.wrong_subcommand(command.args)
        what = MODES[b"all"]
        if len(command.args) == 4:
            if command.args[3].lower() not in MODES:
                return resp.error("ERR CLIENT PAUSE mode must be WRITE or ALL")
            what = MODES[command.args[3].lower()]
        milliseconds = integer(command.args[2])
        if milliseconds is None:
            return resp.error("ERR timeout is not an integer or out of range")
        if milliseconds < 0:
            return resp.error("ERR timeout is negative")
        if milliseconds > NEVER - int(time.time() * 1000):
            return resp.error("ERR timeout is out of range")
        self._end = max(self._end, time.monotonic() + milliseconds / 1000)
        if what > self._what:
            self._what = what
            self._core.set_pause(what)
        if self._timer:
            self._timer.cancel()
        self._sleep()
        return resp.OK

    async def unpause(self, _: _core.Command) -> bytes:
        """CLIENT UNPAUSE."""
        self._finish()
        return resp.OK

    def describe(self) -> dict[str, str]:
        """Name the state as INFO does."""
        left = max(0, round((self._end - time.monotonic()) * 1000)) if self._what else 0
        return {
            "paused_reason": "client_pause" if self._what else "none",
            "paused_actions": {0: "none", 1: "write", 2: "all"}[self._what],
            "paused_timeout_milliseconds": str(left),
        }

    def _sleep(self) -> None:
        """Look again at the end, or in a day: the loop's clock has limits."""
        left = self._end - time.monotonic()
        if left <= 0:
            self._finish()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left, 86400), self._sleep)

    def _finish(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._end = 0.0
        if self._what:
            self._what = NOTHING
            self._core.set_pause(NOTHING)
