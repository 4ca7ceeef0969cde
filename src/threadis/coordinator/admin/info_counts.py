"""INFO's sections that count commands and errors, from the workers' counts.

Only the times are those of the instances; these include our own calls of the same commands.
"""

from collections.abc import Mapping

from threadis.coordinator.admin.command_stats import CommandStats
from threadis.coordinator.instances import info_merge
from threadis.coordinator.instances.info_merge import Sections
from threadis.coordinator.keys.own_reads import ReadCounts

PREFIX = {"Commandstats": "cmdstat_", "Latencystats": "latency_percentiles_usec_"}


def replace_counts(merged: Sections, tally: CommandStats) -> None:
    """Replace the instances' counts by the workers' counts."""
    if "Commandstats" in merged:
        merged["Commandstats"] = _commands(merged["Commandstats"], tally)
    if "Errorstats" in merged:
        merged["Errorstats"] = {
            f"errorstat_{_safe(kind)}": f"count={number}"
            for kind, number in sorted(tally.errors.items())
        }
    if "Latencystats" in merged:
        ran = [name for name, count in tally.commands.items() if count.calls]
        shown = {PREFIX["Latencystats"] + name for name in ran}
        merged["Latencystats"] = {
            name: value for name, value in merged["Latencystats"].items() if name in shown
        }


def subtract_own(merged: Sections, refused: Mapping[bytes, int], reads: ReadCounts) -> None:
    """Subtract what no client has done: refusals of scripts' sandbox users, and our own reads."""
    stats = merged.get("Stats", {})
    for field, count in (
        ("acl_access_denied_key", refused.get(b"key", 0)),
        ("acl_access_denied_cmd", refused.get(b"command", 0)),
        ("keyspace_hits", reads.hits),
        ("keyspace_misses", reads.misses),
    ):
        if field in stats:
            stats[field] = str(max(int(stats[field]) - count, 0))


def _commands(theirs: dict[str, str], tally: CommandStats) -> dict[str, str]:
    found = {}
    for name, count in tally.commands.items():
        field = PREFIX["Commandstats"] + name
        usec = int(info_merge.counts(theirs.get(field, "")).get("usec", 0))
        found[field] = (
            f"calls={count.calls},usec={usec},usec_per_call={usec / max(count.calls, 1):.2f},"
            f"rejected_calls={count.rejected},failed_calls={count.failed}"
        )
    return found


def _safe(kind: str) -> str:
    """Escape an error's name as the servers do: a script may have made it up."""
    return kind.translate({ord(char): "_" for char in "#:\r\n"})
