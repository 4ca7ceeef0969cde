"""LATENCY: the samples of all instances as those of one server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from threadis import _core, resp
from threadis.coordinator.admin.command_stats import StatsCollector
from threadis.coordinator.instances.links import Kind, Links, value

SAMPLES: Final = 160  # a server keeps this many of each event


class Latency:
    """Merges what the instances have measured."""

    def __init__(self, links: Links, stats_collector: StatsCollector) -> None:
        self._links, self._stats_collector = links, stats_collector

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Each command by its row's name."""
        return {
            "latency|history": self._history,
            "latency|latest": self._latest,
            "latency|graph": self._graph,
            "latency|histogram": self._histogram,
            "latency|reset": self._reset,
        }

    async def _history(self, command: _core.Command) -> bytes:
        """Return samples by second; of each second the longest, as a server does."""
        longest: dict[int, int] = {}
        for part in await self._links.call_all(*command.args):
            for second, milliseconds in part:
                longest[second] = max(longest.get(second, 0), milliseconds)
        return resp.encode([list(sample) for sample in sorted(longest.items())[-SAMPLES:]])

    async def _latest(self, command: _core.Command) -> bytes:
        """Return name, time, latest and longest; newer servers add sum and count."""
        events: dict[bytes, list[Any]] = {}
        for part in await self._links.call_all(*command.args):
            for row in part:
                known = events.setdefault(row[0], row)
                if known is not row:
                    newest = max(known, row, key=lambda one: (one[1], one[2]))
                    sums = [a + b for a, b in zip(known[4:], row[4:], strict=True)]
                    events[row[0]] = [*newest[:3], max(known[3], row[3]), *sums]
        return resp.encode(list(events.values()))

    async def _graph(self, command: _core.Command) -> bytes:
        """Return the graph of the instance that had the event; of several, all graphs."""
        kind = Kind(command.info.resp)
        asked = (self._links.raw(i, [command.args], kind=kind) for i in self._links.all_instances())
        replies = [reply for [reply] in await asyncio.gather(*asked)]
        drawn = {i: reply for i, reply in enumerate(replies) if not reply.startswith(b"-")}
        if len(drawn) <= 1:
            return next(iter(drawn.values()), replies[0])
        texts = {i: value(reply) for i, reply in drawn.items()}
        shown = "".join(
            f"Instance {i}:\n{text if isinstance(text, str) else text.decode()}\n"
            for i, text in texts.items()
        )
        return resp.text(shown.encode(), command.info.resp)

    async def _reset(self, command: _core.Command) -> bytes:
        """Reset; return the number of events; an event of several instances counts once."""
        had = {row[0] for part in await self._links.call_all(b"LATENCY", b"LATEST") for row in part}
        await self._links.call_all(*command.args)
        named = set(command.args[2:])
        return resp.encode(len(had & named if named else had))

    async def _histogram(self, command: _core.Command) -> bytes:
        """Return the clients' call counts; the durations are those of the instances."""
        buckets: dict[str, dict[int, int]] = {}
        for part in await self._links.call_all(*command.args):
            for name, row in zip(part[::2], part[1::2], strict=True):
                counts, before = buckets.setdefault(name.decode(), {}), 0
                for bucket, total in zip(row[3][::2], row[3][1::2], strict=True):
                    counts[bucket] = counts.get(bucket, 0) + total - before
                    before = total
        called = (await self._stats_collector.collect()).commands
        asked = [name.decode(errors="replace").lower() for name in command.args[2:]]
        names = [n for n in called if n in buckets or await self._is_measured(n, asked)]
        found = {
            name.encode(): _cumulated(_fitted(buckets.get(name, {}), called[name].calls))
            for name in names
            if called[name].calls
        }
        return encoded(found, command.info.resp)

    async def _is_measured(self, name: str, asked: list[str]) -> bool:
        """Whether a histogram is wanted for a command that only workers answer."""
        if asked and name not in asked and name.partition("|")[0] not in asked:
            return False
        index = self._links.any_ready()
        reply = await self._links.call(index, b"CONFIG", b"GET", b"latency-tracking")
        return isinstance(reply, list) and reply[1:] == [b"yes"]


def _fitted(counts: dict[int, int], calls: int) -> dict[int, int]:
    """Remove the shortest samples: our own calls, and all but one of a command on several
    instances.

    What a worker answers by itself goes into the first bucket.
    """
    missing = calls - sum(counts.values())
    fitted = dict(counts)
    if missing > 0:
        fitted[1] = fitted.get(1, 0) + missing
    for bucket in sorted(counts):
        taken = min(fitted[bucket], max(0, -missing))
        fitted[bucket] -= taken
        missing += taken
    return {bucket: count for bucket, count in fitted.items() if count}


def _cumulated(counts: dict[int, int]) -> dict[bytes, Any]:
    total, shown = 0, {}
    for bucket, count in sorted(counts.items()):
        total += count
        shown[bucket] = total
    return {b"calls": total, b"histogram_usec": shown}


def encoded(found: Any, protocol: int) -> bytes:
    """Encode nested maps, which are flat arrays in RESP2, and doubles."""
    if isinstance(found, float):
        shown = b"%.17g" % found
        return b",%s\r\n" % shown if protocol == 3 else resp.bulk(shown)
    if not isinstance(found, dict):
        return resp.encode(found)
    head = b"%%%d\r\n" % len(found) if protocol == 3 else b"*%d\r\n" % (2 * len(found))
    return head + b"".join(encoded(part, protocol) for item in found.items() for part in item)
