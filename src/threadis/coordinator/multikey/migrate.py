"""MIGRATE: each instance sends its own keys to the other server."""

import asyncio
from collections import defaultdict

from threadis import _core
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.multikey.execution import Execution

KEY, OPTIONS = 3, 6  # arguments: the one key, where options begin
ARGUMENTS = {b"COPY": 0, b"REPLACE": 0, b"AUTH": 1, b"AUTH2": 2}  # of each option


class Migrate:
    """Runs MIGRATE."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def migrate(self, command: _core.Command) -> bytes:
        """MIGRATE host port key|"" db timeout [option …] [KEYS key …].

        As on one server it is not atomic: after an error some keys may have been moved. Each
        instance waits for the other server, and so do its other clients.
        """
        args, db = command.args, command.info.db
        at = keys_at(args)
        keys = list(args[at + 1 :]) if at else [args[KEY]]
        table = self._execution.table
        parts: dict[int, list[bytes]] = defaultdict(list)
        for key in keys:
            parts[table.owner(db, key)].append(key)
        words: dict[int, Words] = dict.fromkeys(parts, args)
        if at and len(parts) > 1:
            words = {index: [*args[: at + 1], *part] for index, part in parts.items()}
        kind = Kind(resp=command.info.resp)
        names = [(db, key) for key in keys]
        links = self._execution.links
        async with self._execution.locks.exclude_holders(names, command.token):
            found = await asyncio.gather(
                *(links.raw(i, [part], db=db, kind=kind, wait=None) for i, part in words.items())
            )
        replies = [reply for (reply,) in found]
        failed = next((reply for reply in replies if reply.startswith(b"-")), None)
        return failed or next((one for one in replies if one == b"+OK\r\n"), replies[0])


def keys_at(args: Words) -> int | None:
    """Return where the word KEYS is, if it is valid; otherwise an instance returns the error."""
    at = OPTIONS
    while at < len(args):
        option = args[at].upper()
        if option == b"KEYS":
            return at if args[KEY] == b"" and at + 1 < len(args) else None
        if option not in ARGUMENTS:
            return None
        at += 1 + ARGUMENTS[option]
    return None
