"""INFO: many instances shown as one server, plus a section of our own."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from threadis import __version__, _core, control, own_names, resp
from threadis.coordinator.acl.users import Users
from threadis.coordinator.admin import info_counts
from threadis.coordinator.admin.command_stats import CommandStats, StatsCollector
from threadis.coordinator.admin.config import Configuration
from threadis.coordinator.admin.own_changes import OwnChanges
from threadis.coordinator.admin.pause import Pause
from threadis.coordinator.blocking.commands import BlockingCommands
from threadis.coordinator.instances import info_merge
from threadis.coordinator.instances.info_collector import WHOLE, InfoCollector, only_sections
from threadis.coordinator.instances.info_merge import Sections
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.tasks import retry_until_done
from threadis.coordinator.keys.own_reads import OwnReads
from threadis.coordinator.lua.library import Library
from threadis.coordinator.multikey.commits import Commits
from threadis.coordinator.sessions.pubsub import Pubsub
from threadis.coordinator.sessions.tracking import Tracking

OURS: Final = "threadis"
NEEDED: Final = (b"memory", b"stats", b"keyspace")  # what our section is made of


class Info:
    """Builds INFO; remembers the counters at the last CONFIG RESETSTAT."""

    def __init__(
        self,
        start: control.Start,
        core: _core.Proxy,
        links: Links,
        configuration: Configuration,
        blocking: BlockingCommands,
        pause: Pause,
        library: Library,
        pubsub: Pubsub,
        stats_collector: StatsCollector,
        tracking: Tracking,
        commits: Commits,
        users: Users,
        own_reads: OwnReads,
        held: Callable[[], dict[str, int]],  # what others hold now, by name
    ) -> None:
        self._held, self._users, self._own_reads = held, users, own_reads
        self._tracking = tracking
        self._commits = commits
        self._pubsub = pubsub
        self._start = start
        self._core = core
        self._links = links
        self._configuration = configuration
        self._blocking = blocking
        self._pause = pause
        self._library = library
        self._stats_collector = stats_collector
        self._info_collector = InfoCollector(links, commits.delete_records, commits.own_changes)
        self._own_changes = OwnChanges(links)
        self._started = time.monotonic()
        self._zero: dict[str, int] = {}

    async def info(self, command: _core.Command) -> bytes:
        """INFO [section …]."""
        wanted = [arg.lower() for arg in command.args[1:]]
        asked = [section for section in wanted if section != OURS.encode()]
        is_whole = not wanted or any(word in WHOLE for word in wanted)
        is_ours = is_whole or OURS.encode() in wanted
        sections = [*asked, *NEEDED] if is_ours and not is_whole else asked
        # Our records are deleted first, so that they are not counted.
        asking = self._info_collector.collect(sections, tidies=bool(asked or not wanted))
        answers, tally = await asyncio.gather(asking, self._stats_collector.collect())
        answers = self._own_changes.subtract(answers, self._info_collector.changes())
        text = ""
        if asked or not wanted:
            if not answers:
                raise LinkError("TRYAGAIN no instance is ready; the command was not run")
            parts = list(answers.values())
            if sections != asked:  # some of it is for our own section
                parts = [only_sections(part, asked) for part in parts]
            merged = info_merge.merge(parts)
            self._put_ours_in(merged, tally)
            text = info_merge.render(merged)
        if is_ours:
            text += ("\r\n" if text else "") + self._own_section(answers)
        return resp.text(text.encode(), command.info.resp)

    async def watch(self) -> None:
        """Collect the instances' INFO again and again."""
        await retry_until_done(
            self._info_collector.collect_forever, "what instances say of themselves"
        )

    async def reset(self, command: _core.Command) -> bytes:
        """CONFIG RESETSTAT: the instances' counters and ours."""
        indices = range(self._links.count)
        await asyncio.gather(*(self._links.call(index, *command.args) for index in indices))
        self._own_reads.reset()
        await self._stats_collector.collect(reset=True)
        self._zero = self._totals()
        return resp.OK

    def _totals(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for worker in self._core.stats():
            for name, value in worker.items():
                totals[name] = totals.get(name, 0) + value
        return totals

    def _put_ours_in(self, merged: Sections, tally: CommandStats) -> None:
        """Replace what instances report of clients and of themselves by the proxy's values."""
        counts = {name: value - self._zero.get(name, 0) for name, value in self._totals().items()}
        uptime = int(time.monotonic() - self._started)
        channels, patterns, shards = self._core.subscriptions()
        values = {
            "pubsub_clients": sum(worker["subscribers"] for worker in self._core.stats()),
            "pubsub_channels": channels,
            "pubsub_patterns": patterns,
            "pubsubshard_channels": shards,
            "process_id": os.getpid(),
            "tcp_port": self._start.tcp_port,
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86400,
            "config_file": self._start.config_file or "",
            "connected_clients": self._core.connected(),
            "total_blocking_keys": self._blocking.count_keys(),
            "total_blocking_keys_on_nokey": self._blocking.count_keys(only_groups=True),
            "maxclients": self._configuration.value("maxclients"),
            "maxmemory": self._configuration.value("maxmemory"),
            "maxmemory_human": info_merge.human(int(self._configuration.value("maxmemory"))),
            "total_connections_received": counts["connections"],
            "total_commands_processed": tally.calls,
            "total_error_replies": tally.errors.total(),
            "total_net_input_bytes": counts["net_input_bytes"],
            "total_net_output_bytes": counts["net_output_bytes"],
            "rejected_connections": counts["rejected_connections"],
            "evicted_clients": counts["clients_evicted"],
            "client_query_buffer_limit_disconnections": counts["input_limit_disconnections"],
            "blocked_clients": self._blocking.count()
            + self._totals()["clients_paused"]
            + self._pause.count(),
            **self._tracking.describe(),
            **self._pause.describe(),
            **self._library.describe(),
        }
        info_counts.replace_counts(merged, tally)
        info_counts.subtract_own(merged, self._users.sandbox_refusals(), self._own_reads.total())
        if "Keyspace" in merged:
            merged["Keyspace"] = self._visible(merged["Keyspace"])
        if "Server" in merged:
            merged["Server"] = self._with_listeners(merged["Server"])
        for fields in merged.values():
            for name, value in values.items():
                if name in fields:
                    fields[name] = str(value)

    def _with_listeners(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Replace the instances' listeners by ours, if the server shows listeners."""
        found = {}
        for name, value in fields.items():
            if not name.startswith("listener"):
                found[name] = value
            elif name not in found:
                found.update(self._listeners())
        return found

    def _listeners(self) -> dict[str, str]:
        """Return our listeners under the server's names: 0 is TCP, 1 the Unix socket."""
        start, found = self._start, {}
        if start.tcp_port:
            hosts = "".join(f",bind={host}" for host in start.bind.split())
            found["listener0"] = f"name=tcp{hosts},port={start.tcp_port}"
        for one in start.listeners:
            if one.is_unix:
                found["listener1"] = f"name=unix,bind={one.address}"
        return found

    def _visible(self, keyspace: Mapping[str, str]) -> dict[str, str]:
        """Leave out our own databases; sort the others."""
        known = {int(name.removeprefix("db")): name for name in keyspace}
        return {
            known[db]: keyspace[known[db]]
            for db in sorted(known)
            if not own_names.is_hidden(db, self._start.databases)
        }

    def _own_section(self, answers: Mapping[int, Sections]) -> str:
        """Render `# Threadis`: the version, totals, and a line for each worker and instance."""
        totals = self._totals()
        fields = {
            "threadis_version": __version__,
            "threadis_instances": str(self._links.count),
            "threadis_workers": str(len(self._start.workers)),
            "threadis_lanes": str(totals["lanes"]),
            "threadis_lanes_aside": str(totals["lanes_aside"]),
            "threadis_lanes_broken": str(totals["lanes_broken"]),
            "threadis_clients_moved": str(totals["clients_moved"]),
            "threadis_lane_writes": str(totals["lane_writes"]),
            "threadis_lane_commands": str(totals["lane_commands"]),
            "threadis_lane_scripts": str(totals["lane_scripts"]),
            "threadis_unwaited": str(totals["unwaited"]),
            "threadis_committed_writes": str(totals["committed_writes"]),
            "threadis_commits": str(totals["commits"]),
            "threadis_commits_given_up": str(totals["commits_given_up"]),
            **{f"threadis_{name}": str(count) for name, count in self._held().items()},
            "threadis_hidden_keys": str(sum(map(self._count_hidden, answers.values()))),
            "threadis_armed_keys": str(self._blocking.count_armed()),
            "threadis_upstream_subscriptions": str(self._pubsub.count()),
            "threadis_slowlog_dropped": str(self._core.dropped_logged()),
            "threadis_protocol_errors": str(totals["protocol_errors"]),
        }
        for index, worker in enumerate(self._core.stats()):
            cpus = "+".join(map(str, self._start.workers[index])) or "any"
            counts = {name: worker[name] for name in ("clients", "commands", "turns")}
            counts["awake_ms"] = worker["awake_nanoseconds"] // 1_000_000
            fields[f"worker{index}"] = _joined({"cpu": cpus, **counts})
        for index in range(self._links.count):
            fields[f"instance{index}"] = self._line(index, answers.get(index, {}))
        return info_merge.render({"Threadis": fields})

    def _count_hidden(self, sections: Sections) -> int:
        """Count our own keys on an instance: commit records, copies."""
        keyspace = sections.get("Keyspace", {})
        ours = keyspace.keys() - self._visible(keyspace).keys()
        return sum(int(info_merge.counts(keyspace[name])["keys"]) for name in ours)

    def _line(self, index: int, sections: Sections) -> str:
        known = self._links.instance(index)
        memory, stats = sections.get("Memory", {}), sections.get("Stats", {})
        keys = sum(
            int(info_merge.counts(value)["keys"])
            for value in self._visible(sections.get("Keyspace", {})).values()
        )
        shown = {
            "state": self._links.state(index),
            "pid": known.pid,
            "cpu": "+".join(map(str, known.cpus)) or "any",
            "socket": known.socket,
            "late_ms": self._info_collector.age_ms(index),
            "used_memory": memory.get("used_memory", 0),
            "mem_fragmentation_ratio": memory.get("mem_fragmentation_ratio", 0),
            "instantaneous_ops_per_sec": stats.get("instantaneous_ops_per_sec", 0),
            "reads": stats.get("total_reads_processed", 0),
            "keys": keys,
        }
        return _joined(shown)


def _joined(values: Mapping[str, object]) -> str:
    """Format a field with several values, as INFO does."""
    return ",".join(f"{name}={value}" for name, value in values.items())
