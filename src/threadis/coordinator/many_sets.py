"""SUNION, SINTER, SDIFF and their kin of very many sets: each instance puts its own together.

Copies of 100,000 sets would hold the instance that borrows them up for long, and us. But a union of
all is the union of what each instance has, and so on::

    each owner:  SUNION of its keys, or SINTER, or SDIFF where the first key is  (under locks)
    one server:  MULTI, SADD of each result, the command on these, DEL, EXEC
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import hiredis

from threadis.coordinator import long, scarcity
from threadis.coordinator.borrowing import NO_EXPIRY, Copy, check_size
from threadis.coordinator.events import telling
from threadis.coordinator.links import Kind, Words
from threadis.coordinator.locks import Lock
from threadis.coordinator.offload import LARGE
from threadis.coordinator.phases import RefusedError
from threadis.coordinator.table import Parsed

if TYPE_CHECKING:
    from threadis.coordinator.execution import Execution

# What the instance of the first key, and the others, are asked of their own keys.
PARTS: Final = {
    "sunion": (b"SUNION", b"SUNION"),
    "sunionstore": (b"SUNION", b"SUNION"),
    "sinter": (b"SINTER", b"SINTER"),
    "sinterstore": (b"SINTER", b"SINTER"),
    "sdiff": (b"SDIFF", b"SUNION"),
    "sdiffstore": (b"SDIFF", b"SUNION"),
}


class ScarceError(RefusedError):
    """There is no memory for what was to be put together; nothing was done."""


@dataclass(frozen=True, slots=True)
class Members(Copy):
    """A set, lent as its members."""

    members: Sequence[bytes] = ()

    def restore(self, key: bytes, *options: bytes) -> Words:
        """Build the command that makes the key this set."""
        return [b"SADD", key, *self.members, *options]


def takes(parsed: Parsed) -> bool:
    """Whether a command is one of these; not if somebody listens to its events."""
    return parsed.row.name in PARTS and len(parsed.keys) >= LARGE and not telling.get()


async def run(execution: "Execution", parsed: Parsed, db: int, kind: Kind, lock: Lock) -> bytes:
    """Run it; RefusedError if a server would not, ScarceError if it has no memory."""
    sources = [access.key for access in parsed.keys if not access.writes]
    target = next((access for access in parsed.keys if access.writes), None)
    first, others = PARTS[parsed.row.name]
    by_owner: dict[int, list[bytes]] = defaultdict(list)
    for key, owner in zip(sources, execution.table.owners_by_name(db, sources), strict=True):
        by_owner[owner].append(key)
    asked = (
        execution.links.raw(index, [[others if at else first, *keys]], db=db)
        for at, (index, keys) in enumerate(by_owner.items())
    )
    replies = [reply for (reply,) in await asyncio.gather(*asked)]
    check_size(sum(map(len, replies)))
    names = [b"%d" % at for at in range(len(replies) + 1)]
    if target and target.key in names:
        names.remove(target.key)  # its value there is another one
    copies: dict[bytes, Copy] = {}
    for name, reply in zip(names, replies, strict=False):
        members = await long.value(reply)
        if isinstance(members, hiredis.ReplyError):
            raise RefusedError(reply)
        if members:
            copies[name] = Members(b"", NO_EXPIRY, members=members)
    words = [parsed.args[0], *names[: len(replies)]]
    written: list[bytes] = []
    if target:
        words.insert(1, target.key)
        written.append(target.key)
        copies |= await execution.borrowing.fetch([target], db)
    home = execution.home(db, [access.key for access in parsed.keys])
    async with execution.links.lease(home, kind, execution.borrowing.scratch) as link:
        try:
            outcome = await execution.borrowing.evaluate_on(link, [words], copies, written)
        except RefusedError as error:
            if error.reply.startswith(scarcity.NO_MEMORY):
                raise ScarceError(error.reply) from error
            raise
    await execution.write_back(outcome, lock, db, needs_memory=parsed.row.needs_memory)
    return outcome.replies[0]
