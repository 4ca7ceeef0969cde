"""Merges the INFO of several instances; pure functions.

Numbers are added, unless their name says that they are not amounts (times, ratios, maxima). Texts
are those of the first instance, except states, where the worst is shown.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Final

Sections = dict[str, dict[str, str]]

# Numbers that are the same everywhere, or meaningless when added: the first instance's.
FIRST: Final = frozenset(
    {
        "redis_git_sha1",
        "redis_build_id",
        "process_id",
        "tcp_port",
        "uptime_in_seconds",
        "uptime_in_days",
        "hz",
        "configured_hz",
        "lru_clock",
        "arch_bits",
        "server_time_usec",
        "total_system_memory",
        "maxmemory_policy",
        "cluster_enabled",
        "loading_start_time",
        "connected_slaves",
        "second_repl_offset",
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "redis_mode",
        "io_threads_active",
        "maxclients",
        "master_replid",
        "master_replid2",
        "run_id",
    }
)
# The largest says how bad, how late, or how high it is. Scripts and functions are everywhere.
LARGEST: Final = re.compile(
    r"_in_progress$|_scheduled$|^loading$|^async_loading$|_sec$|_usec$|_time_sec|max|peak_perc|"
    r"_perc$|longest|_ratio$|^aof_enabled$|cow_|_rewrite_buffer|^lru|_seconds$|^number_of_"
)
# The smallest: "done" is true only once all have done it.
SMALLEST: Final = frozenset(("rdb_last_save_time", "module_fork_last_cow_size"))
NUMBER: Final = re.compile(r"^-?\d+(\.\d+)?$")


def parse(text: str) -> Sections:
    """Split INFO into sections of fields, both in the server's order."""
    sections: Sections = {}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            fields = sections.setdefault(line[2:], {})
        elif ":" in line:
            name, value = line.split(":", 1)
            fields[name] = value
    return sections


def render(sections: Sections) -> str:
    """Write sections as INFO does."""
    blocks = []
    for title, fields in sections.items():
        lines = [f"# {title}", *(f"{name}:{value}" for name, value in fields.items())]
        blocks.append("".join(f"{line}\r\n" for line in lines))
    return "\r\n".join(blocks)


def merge(instances: list[Sections]) -> Sections:
    """Build one server's INFO from that of several."""
    merged: Sections = {}
    for title in _in_order(instances):
        parts = [sections.get(title, {}) for sections in instances]
        names = _in_order(parts)
        merged[title] = {
            name: _field(name, [part[name] for part in parts if name in part]) for name in names
        }
    if "Memory" in merged:
        _memory_again(merged["Memory"])
    return merged


def _in_order(parts: Iterable[Iterable[str]]) -> list[str]:
    """Return every name, in the order of first appearance."""
    return list(dict.fromkeys(name for part in parts for name in part))


def _field(name: str, values: list[str]) -> str:
    if ("=" in values[0] and "," in values[0]) or name.startswith("errorstat_"):
        return _structured(name, values)
    if name in FIRST or len(values) == 1:
        return values[0]
    if name.endswith("_status"):
        return next((value for value in values if value != "ok"), "ok")
    return _number(name, values)


def _number(name: str, values: list[str]) -> str:
    """Combine numbers; if some are not numbers, return the first value."""
    try:
        return str(_rule(name)(map(int, values)))
    except ValueError:
        if not all(NUMBER.match(value) for value in values):
            return values[0]
    decimals = max(len(value.partition(".")[2]) for value in values)
    return f"{_rule(name)(map(float, values)):.{decimals}f}"


@functools.lru_cache(4096)
def _rule(name: str) -> Callable[[Iterable[float]], float]:
    """Return how numbers of this name are combined."""
    if name in SMALLEST:
        return min
    return max if LARGEST.search(name) else sum


def counts(value: str) -> dict[str, str]:
    """Parse `keys=1,expires=0,…`."""
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


def _structured(name: str, values: list[str]) -> str:
    """`cmdstat_get:calls=1,usec=2,…`, `db0:keys=1,…`, `errorstat_ERR:count=1`."""
    parts = [counts(value) for value in values]
    names = _in_order(parts)
    is_latency = name.startswith("latency_percentiles")
    merged = {
        field: _amount(field, [part[field] for part in parts if field in part], is_latency)
        for field in names
    }
    if "usec_per_call" in merged:
        merged["usec_per_call"] = f"{int(merged['usec']) / max(int(merged['calls']), 1):.2f}"
    if "avg_ttl" in merged:
        weighted = sum(int(part["avg_ttl"]) * int(part["expires"]) for part in parts)
        merged["avg_ttl"] = str(weighted // max(int(merged["expires"]), 1))
    return ",".join(f"{field}={value}" for field, value in merged.items())


def _amount(field: str, values: list[str], is_latency: bool) -> str:
    if is_latency and all(map(NUMBER.match, values)):
        return max(values, key=float)
    return _number(field, values)


def _memory_again(memory: dict[str, str]) -> None:
    """Compute again what follows from sums."""
    for name in memory:
        if name.endswith("_human") and name.removesuffix("_human") in memory:
            memory[name] = human(int(memory[name.removesuffix("_human")]))
    pairs = (
        ("mem_fragmentation_ratio", "used_memory_rss", "used_memory"),
        ("allocator_frag_ratio", "allocator_active", "allocator_allocated"),
        ("allocator_rss_ratio", "allocator_resident", "allocator_active"),
        ("rss_overhead_ratio", "used_memory_rss", "allocator_resident"),
    )
    for name, over, under in pairs:
        if {name, over, under} <= memory.keys() and int(memory[under]) > 0:
            memory[name] = f"{int(memory[over]) / int(memory[under]):.2f}"
    if "used_memory_peak_perc" in memory and int(memory["used_memory_peak"]) > 0:
        share = 100 * int(memory["used_memory"]) / int(memory["used_memory_peak"])
        memory["used_memory_peak_perc"] = f"{share:.2f}%"


def human(size: int) -> str:
    """Format bytes as INFO does."""
    value = float(size)
    for unit in "BKMGTP":
        if value < 1024 or unit == "P":
            break
        value /= 1024
    return f"{size}B" if unit == "B" else f"{value:.2f}{unit}"
