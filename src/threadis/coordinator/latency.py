"""LATENCY: the samples of all instances as those of one server."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import hiredis

from threadis import _core, resp
from threadis.coordinator.links import Links
from threadis.coordinator.tallies import Tallies

SAMPLES: Final = 160  # a server keeps so many of an event


class Latency:
    """Merges what the instances measured."""

    def __init__(self, links: Links, tallies: Tallies) -> None:
        self._links, self._tallies = links, tallies

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Each command by its row's name."""
        return {
            "latency|history": self._history,
            "latency|latest": self._latest,
            "latency|histogram": self._histogram,
            "latency|reset": self._reset,
        }

    async def _history(self, command: _core.Command) -> bytes:
        """Samples by second; of one second the longest, as a server keeps them."""
        longest: dict[int, int] = {}
        for part in await self._links.call_all(*command.args):
            for second, milliseconds in part:
                longest[second] = max(longest.get(second, 0), milliseconds)
        return resp.encode([list(sample) for sample in sorted(longest.items())[-SAMPLES:]])

    async def _latest(self, command: _core.Command) -> bytes:
        """Name, when, the latest, the longest; newer servers add the sum and the count."""
        events: dict[bytes, list[Any]] = {}
        for part in await self._links.call_all(*command.args):
            for row in part:
                known = events.setdefault(row[0], row)
                if known is not row:
                    newest = max(known, row, key=lambda one: (one[1], one[2]))
                    sums = [a + b for a, b in zip(known[4:], row[4:], strict=True)]
                    events[row[0]] = [*newest[:3], max(known[3], row[3]), *sums]
        return resp.encode(list(events.values()))

    async def _reset(self, command: _core.Command) -> bytes:
        """How many events were reset: one that several instances had is one."""
        had = {row[0] for part in await self._links.call_all(b"LATENCY", b"LATEST") for row in part}
        await self._links.call_all(*command.args)
        named = set(command.args[2:])
        return resp.encode(len(had & named if named else had))

    async def _histogram(self, command: _core.Command) -> bytes:
        """Calls are added, and so are the cumulative counts of the buckets."""
        buckets: dict[bytes, dict[int, int]] = {}
        for part in await self._links.call_all(*command.args):
            if isinstance(part, hiredis.ReplyError):
                return resp.error(str(part))
            for name, row in zip(part[::2], part[1::2], strict=True):
                counts, before = buckets.setdefault(name, {}), 0
                for bucket, total in zip(row[3][::2], row[3][1::2], strict=True):
                    counts[bucket] = counts.get(bucket, 0) + total - before
                    before = total
        called = (await self._tallies.read()).commands  # what else there is are our own calls
        found = {
            name: _cumulated(counts) for name, counts in buckets.items() if name.decode() in called
        }
        return encoded(found, command.info.resp)


def _cumulated(counts: dict[int, int]) -> dict[bytes, Any]:
    total, shown = 0, {}
    for bucket, count in sorted(counts.items()):
        total += count
        shown[bucket] = total
    return {b"calls": total, b"histogram_usec": shown}


def encoded(found: Any, protocol: int) -> bytes:
    """Maps within maps, which are flat arrays in RESP2."""
    if not isinstance(found, dict):
        return resp.encode(found)
    head = b"%%%d\r\n" % len(found) if protocol == 3 else b"*%d\r\n" % (2 * len(found))
    return head + b"".join(encoded(part, protocol) for item in found.items() for part in item)
