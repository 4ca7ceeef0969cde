"""Stops a server: asks until it ends, and waits while that makes sense.

A server that saves may take its time. One that cannot save says so in its log; one that runs a
script does not react to SIGTERM. Both have a limit. So has one that neither answers nor writes: it
runs a script and does not say BUSY yet, or it is frozen.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable

from threadis.system.process import Child, activity, bytes_written, first_of

log = logging.getLogger("threadis")

SAVE_LIMIT = 600.0  # seconds a stopping server may take to save; big data sets take minutes
REFUSAL_LIMIT = 30.0  # seconds for a server that cannot save, in which disk space can be freed
BUSY_LIMIT = 20.0  # seconds for a script to end; less than 30 together with the proxy's grace
RETRY = 1.0  # seconds between telling it again
LAST_WORD = 1.0  # seconds to leave after SHUTDOWN NOSAVE
# What both servers log when they begin to leave, and when they will not because they cannot save
SHUTDOWN_BEGUN = "User requested shutdown"
SAVE_FAILED = ("can't exit", "trying to shut down the server")
SCRIPT = "a script ran that could not be ended: it has written"
SILENCE = "it did not answer"

Ask = Callable[..., Awaitable[bytes | None]]


class InstanceStop:
    """The end of one process; ``ask`` sends it a command, None if there is no answer."""

    def __init__(
        self, name: str, child: Child, ask: Ask, new_log: Callable[[], str], *, saves: bool
    ) -> None:
        self._name, self._child, self._ask, self._new_log = name, child, ask, new_log
        self._saves = saves
        now = time.monotonic()
        self._latest, self._deadline = now + SAVE_LIMIT, now + BUSY_LIMIT
        self._written = bytes_written(child.pid)
        self._obstacle = ""

    async def wait(self, fast: asyncio.Event) -> str:
        """Wait for its end, while that makes sense; return what prevented it."""
        await self._tell()
        while not fast.is_set() and time.monotonic() < self._deadline:
            await first_of(self._child.exited, fast, RETRY)
            if self._child.exited.done():
                return ""
            await self._look()
            if self._obstacle or not self._saves:
                await self._tell()
        if self._obstacle == SCRIPT and not fast.is_set():
            await self._ask("SHUTDOWN", "NOSAVE")  # its append-only file is written to the end
            await self._child.ended_within(LAST_WORD)
        return self._obstacle

    async def _tell(self) -> None:
        self._child.send(signal.SIGCONT)  # a stopped process must continue in order to save
        if self._saves:
            self._child.send(signal.SIGTERM)
        else:
            await self._ask("SHUTDOWN", "NOSAVE")

    async def _look(self) -> None:
        """Find out why it has not ended yet, and how long it may take."""
        text, now = self._new_log(), time.monotonic()
        before, self._written = self._written, bytes_written(self._child.pid)
        if refusal := next((line for line in text.splitlines() if is_save_failure(line)), ""):
            if self._obstacle in ("", SCRIPT, SILENCE):
                self._deadline = now + REFUSAL_LIMIT
                log.error(
                    "%s cannot save and refuses to stop: %s; free disk space within %.0f s, "
                    "after that, data that is not on disk is lost",
                    self._name,
                    refusal.strip(),
                    REFUSAL_LIMIT,
                )
            self._obstacle = refusal.strip()
        elif SHUTDOWN_BEGUN in text:
            self._deadline, self._obstacle = self._latest, ""
        elif await self._ends_script():
            if self._obstacle != SCRIPT:
                left = self._deadline - now
                log.error(
                    "%s runs a script that has written; if that does not end within %.0f s, "
                    "the instance is killed and data that is not on disk is lost",
                    self._name,
                    left,
                )
            self._obstacle = SCRIPT
        elif self._written != before or activity(self._child.pid).state == "D":
            self._deadline, self._obstacle = min(self._latest, now + BUSY_LIMIT), ""
        else:
            self._obstacle = SILENCE

    async def _ends_script(self) -> bool:
        """Kill a script that has not written; whether one runs that has."""
        answer = await self._ask("SCRIPT", "KILL") or b""
        if answer.startswith(b"-BUSY"):
            answer = await self._ask("FUNCTION", "KILL") or b""
        return answer.startswith(b"-UNKILLABLE")


def is_save_failure(line: str) -> bool:
    """Whether a server says there that it does not end because it cannot save."""
    return any(words in line for words in SAVE_FAILED)
