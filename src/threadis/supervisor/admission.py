"""What an instance must pass between having loaded its data and being ready.

Data that was in snapshots and is to be in the append-only log, or the other way round, is
converted. Unless its files are certainly its own, its keys are checked: with a file of another
instance, clients would get keys from SCAN that GET does not find.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from threadis import own_names
from threadis.data.integrity import DataSource, FileConfig
from threadis.data.where import is_ours
from threadis.errors import DataError
from threadis.supervisor.health import Connection, HealthError

log = logging.getLogger("threadis")

REWRITE_LOOK: Final = 0.02  # seconds between looks whether the log is written
KEYS_AT_ONCE: Final = 1000
SAMPLE: Final = 100_000  # keys that are looked at when only the log's end is not known

Ask = Callable[..., Awaitable[bytes]]
Owner = Callable[[int, bytes], int]  # of a key in a database: the instance


async def convert_persistence(index: int, ask: Ask, *, is_logged: bool) -> None:
    """Move the data into the log, and let it be written from now on; or into a snapshot."""
    if not is_logged:
        await _demand(index, ask, "SAVE")
        await _demand(index, ask, "CONFIG", "SET", "appendonly", "no")
        log.info(
            "instance %d: its data was converted from an append-only file to a snapshot", index
        )
        return
    await _demand(index, ask, "CONFIG", "SET", "appendonly", "yes")
    has_complained = False
    while True:
        info = await ask("INFO", "persistence")
        is_good = b"aof_last_bgrewrite_status:ok" in info
        if b"aof_rewrite_in_progress:0" in info and b"aof_rewrite_scheduled:0" in info and is_good:
            break
        if not is_good and not has_complained:
            has_complained = True
            log.error("instance %d cannot write its append-only file; free disk space", index)
        await asyncio.sleep(REWRITE_LOOK)
    log.info("instance %d: its data was converted from a snapshot to an append-only file", index)


async def _demand(index: int, ask: Ask, *words: str) -> None:
    reply = await ask(*words)
    if not reply.startswith(b"+"):
        text = reply.decode("utf-8", "replace").strip()
        log.error("instance %d refuses %s: %s", index, " ".join(words), text)
        raise HealthError(text)


async def check_keys(
    index: int, owner: Owner, wanted: FileConfig, source: DataSource, connection: Connection
) -> None:
    """Refuse data with keys that belong to another instance, or to none."""
    name = f"{wanted.folder}/{wanted.log}.*" if source.is_log else wanted.dump
    for db, count in await _databases(connection):
        if (
            db <= wanted.databases
        ):  # behind: copies of borrowed keys, which are as clients name them
            most = min(count, SAMPLE) if source.grew else count
            await _check_database(index, owner, wanted, name, connection, db, most)


async def _check_database(
    index: int,
    owner: Owner,
    wanted: FileConfig,
    name: str,
    connection: Connection,
    db: int,
    most: int,
) -> None:
    await connection.ask("SELECT", str(db))
    cursor, seen = b"0", 0
    while True:
        cursor, keys = await connection.values("SCAN", cursor.decode(), "COUNT", str(KEYS_AT_ONCE))
        for key in keys:
            if db == wanted.databases:
                why = "" if is_ours(key) else f"is in database {db}"
            else:
                found = owner(db, key)
                why = "" if found == index else f"belongs to instance {found}"
            if why:
                shown = key[:100].decode("utf-8", "backslashreplace")
                raise DataError(
                    f"dir: {name} in instance-{index} belongs elsewhere: its key {shown!r} "
                    f"{why}; put its own file back, or move this one away and import its data "
                    "through clients (docs/configuration.md)"
                )
        seen += len(keys)
        if cursor == b"0" or seen >= most:
            break
    await connection.ask("SELECT", "0")


async def _databases(connection: Connection) -> list[tuple[int, int]]:
    """Return the databases that have keys, and how many."""
    info = await connection.ask("INFO", "keyspace")
    found = []
    for line in info.splitlines():
        if line.startswith(b"db"):
            name, _, rest = line.partition(b":keys=")
            found.append((int(name[2:]), int(rest.split(b",")[0])))
    return found


async def move_own_databases(connection: Connection, before: int, now: int) -> None:
    """Move our hidden databases when clients have got more of theirs."""
    full = {db for db, _ in await _databases(connection)}
    for offset in reversed(range(own_names.HIDDEN_DATABASES)):
        if before + offset in full:
            await connection.ask("SWAPDB", str(before + offset), str(now + offset))
