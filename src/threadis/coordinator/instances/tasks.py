"""Owns tasks: keeps references to them, and logs every failure.

asyncio does neither: a task without a reference may vanish, and one that fails does so silently.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from threadis.coordinator.instances.links import LinkError

log = logging.getLogger(__name__)

RETRY = 0.05  # seconds before something that failed is tried again


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(
        self, job: Coroutine[Any, Any, Any], what: str, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Start a task; ``what`` names it in the log if it fails."""
        task = asyncio.create_task(job, name=what, context=context)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LinkError):  # an instance is gone: that is logged elsewhere
            log.warning("%s: %s", task.get_name(), error)
        else:
            log.error("%s failed", task.get_name(), exc_info=error)


async def retry_until_done(job: Callable[[], Awaitable[None]], what: str) -> None:
    """Repeat a job until it succeeds; failures are logged, except a lost instance."""
    while True:
        try:
            return await job()
        except LinkError:
            pass
        except Exception:
            log.exception("%s failed; trying again", what)
        await asyncio.sleep(RETRY)
