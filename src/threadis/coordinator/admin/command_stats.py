"""Counts of commands and errors, summed over all workers."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from threadis import _core


@dataclass(slots=True)
class CommandCount:
    """How often one command was called, rejected, and failed."""

    calls: int = 0
    rejected: int = 0
    failed: int = 0


@dataclass(slots=True)
class CommandStats:
    """The counts of all workers."""

    commands: dict[str, CommandCount] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, part: _core.Tally) -> None:
        """Add a worker's counts."""
        for name, calls, rejected, failed in part.commands:
            count = self.commands.setdefault(name, CommandCount())
            count.calls += calls
            count.rejected += rejected
            count.failed += failed
        for kind, number in part.errors:
            self.errors[kind.decode(errors="replace")] += number

    @property
    def calls(self) -> int:
        """The number of commands that ran."""
        return sum(count.calls for count in self.commands.values())


class StatsCollector:
    """Asks the workers for their counts."""

    def __init__(self, core: _core.Proxy, workers: int) -> None:
        self._core = core
        self._workers = workers
        self._last_request = 0
        self._parts: dict[int, list[_core.Tally]] = {}
        self._answers: dict[int, asyncio.Future[None]] = {}

    def receive(self, part: _core.Tally) -> None:
        """Take a worker's answer; the last one completes the request."""
        parts = self._parts.get(part.request)
        if parts is None:
            return  # not waited for any more
        parts.append(part)
        if len(parts) == self._workers and not self._answers[part.request].done():
            self._answers[part.request].set_result(None)

    async def collect(self, *, reset: bool = False) -> CommandStats:
        """Add up the workers' counts; ``reset`` sets them to zero."""
        self._last_request += 1
        request = self._last_request
        parts = self._parts[request] = []
        self._answers[request] = asyncio.get_running_loop().create_future()
        self._core.tally(request, reset)
        try:
            await self._answers[request]
        finally:
            del self._parts[request], self._answers[request]
        total = CommandStats()
        for part in parts:
            total.add(part)
        return total
