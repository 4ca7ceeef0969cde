"""MEMORY STATS: the amounts of all instances added, and the ratios computed again."""

from collections.abc import Iterable
from typing import Any

from threadis import _core, own_names
from threadis.coordinator.admin.latency import encoded
from threadis.coordinator.instances.links import Links

# A ratio or a percentage (the factor) of two sums.
QUOTIENTS = {
    b"dataset.percentage": (b"dataset.bytes", b"net.allocated", 100),
    b"peak.percentage": (b"total.allocated", b"peak.allocated", 100),
    b"allocator-fragmentation.ratio": (b"allocator.active", b"allocator.allocated", 1),
    b"allocator-rss.ratio": (b"allocator.resident", b"allocator.active", 1),
}
NET = b"net.allocated"  # not shown: what the data percentage is of
Stats = dict[bytes, Any]


class Memory:
    """Merges the instances' memory statistics."""

    def __init__(self, links: Links, databases: int) -> None:
        self._links, self._databases = links, databases

    async def stats(self, command: _core.Command) -> bytes:
        """MEMORY STATS."""
        merged = merge([_as_map(one) for one in await self._links.call_all(*command.args)])
        for name in [name for name in merged if self._is_hidden(name)]:
            del merged[name]
        return encoded(merged, command.info.resp)

    def _is_hidden(self, name: bytes) -> bool:
        return (
            name.startswith(b"db.")
            and name[3:].isdigit()
            and own_names.is_hidden(int(name[3:]), self._databases)
        )


def _as_map(reply: list[Any]) -> Stats:
    """Convert a flat array to a map, and texts to numbers."""
    found: Stats = {}
    for name, value in zip(reply[::2], reply[1::2], strict=True):
        if isinstance(value, list):
            found[name] = _as_map(value)
        else:
            found[name] = float(value) if isinstance(value, bytes) else value
    return found


def merge(parts: Iterable[Stats]) -> Stats:
    """Add amounts; of other values that cannot be computed again, take the largest."""
    total: Stats = {}
    for part in parts:
        for name, value in part.items():
            known = total.get(name)
            if known is None:
                total[name] = value
            elif isinstance(value, dict):
                total[name] = merge([known, value])
            elif isinstance(value, float):
                total[name] = max(known, value)
            else:
                total[name] = known + value
    if b"total.allocated" in total:
        _compute_again(total)
    return total


def _compute_again(total: Stats) -> None:
    sums = {**total, NET: total[b"total.allocated"] - total[b"startup.allocated"]}
    for name, (over, under, factor) in QUOTIENTS.items():
        if name in total and sums.get(under):
            total[name] = float(factor * sums[over] / sums[under])
    if total.get(b"keys.count"):
        total[b"keys.bytes-per-key"] = sums[NET] // total[b"keys.count"]
