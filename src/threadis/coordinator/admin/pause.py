"""CLIENT PAUSE and UNPAUSE: the workers hold commands back; the timer is here.

Scripts are held back here: whether one may write depends on its first line or its function's flags.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from typing import Final

from threadis import _core, resp
from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.base.numbers import parse_integer
from threadis.coordinator.keys.waiters import ClientKey, client_key
from threadis.coordinator.lua.library import Library

NOTHING: Final = 0
MODES: Final = {b"write": 1, b"all": 2}
NEVER: Final = 2**63 - 1  # milliseconds


class Pause:
    """The one pause of all clients."""

    def __init__(
        self, core: _core.Proxy, library: Library, *, takes_more: bool, wraps: bool
    ) -> None:
        self._core = core
        self._library = library
        self._held: dict[
            ClientKey, asyncio.Future[bool]
        ] = {}  # True: go on; False: the client has left
        self._takes_more = takes_more  # Valkey ignores the mode if more arguments follow
        self._wraps = wraps  # Redis 7.0 overflows there: the pause is over at once
        self._what = NOTHING
        self._sleepers = 0
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
        milliseconds = parse_integer(command.args[2])
        if milliseconds is None:
            return resp.error("ERR timeout is not an integer or out of range")
        if milliseconds < 0:
            return resp.error("ERR timeout is negative")
        if milliseconds <= NEVER - int(time.time() * 1000):
            self._end = max(self._end, time.monotonic() + milliseconds / 1000)
        elif not self._wraps:
            return resp.error("ERR timeout is out of range")
        if what > self._what:
            self._what = what
            self._tell()
        if self._timer:
            self._timer.cancel()
        self._sleep()
        return resp.OK

    async def unpause(self, _: _core.Command) -> bytes:
        """CLIENT UNPAUSE."""
        self._finish()
        return resp.OK

    @contextlib.contextmanager
    def sleeping(self) -> Iterator[None]:
        """Hold all clients' commands back, as a sleeping server does (DEBUG SLEEP)."""
        self._sleepers += 1
        self._tell()
        try:
            yield
        finally:
            self._sleepers -= 1
            self._tell()

    def _tell(self) -> None:
        self._core.set_pause(MODES[b"all"] if self._sleepers else self._what)

    def clients(self) -> Collection[ClientKey]:
        """Return the clients whose commands are held back here."""
        return self._held.keys()

    def count(self) -> int:
        """Return their number."""
        return len(self._held)

    async def wait_while_paused(self, command: _core.Command) -> bool:
        """Hold back a script or EXEC that may write; False if its client has left."""
        if self._what and command.token is None and await self._may_write(command):
            while self._what:
                future = asyncio.get_running_loop().create_future()
                self._held[client_key(command)] = future
                try:
                    if not await future:
                        return False
                finally:
                    del self._held[client_key(command)]
        return True

    async def _may_write(self, command: _core.Command) -> bool:
        for args in command.queued or [command.args]:
            is_script = args[0].lower().decode(errors="replace") in SCRIPTS
            if is_script and not await self._library.only_reads(args):
                return True
        return False

    def client_left(self, client: ClientKey) -> None:
        """Note that a client has hung up."""
        future = self._held.get(client)
        if future and not future.done():
            future.set_result(False)

    def describe(self) -> dict[str, str]:
        """Return the fields of INFO."""
        left = max(0, round((self._end - time.monotonic()) * 1000)) if self._what else 0
        return {
            "paused_reason": "client_pause" if self._what else "none",
            "paused_actions": {0: "none", 1: "write", 2: "all"}[self._what],
            "paused_timeout_milliseconds": str(left),
        }

    def _sleep(self) -> None:
        """Wait until the pause ends, at most a day at a time: the loop's clock has limits."""
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
            self._tell()
            for future in self._held.values():
                if not future.done():
                    future.set_result(True)
