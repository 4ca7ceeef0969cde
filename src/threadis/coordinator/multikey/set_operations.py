"""SUNION, ZUNION and similar commands on very many sets: each instance combines its own first.

Copies of 100,000 sets would block the instance that borrows them for long, and the proxy. But a
union of all sets is the union of what each instance has, and so on::

    each owner:  SUNION of its keys, or SINTER, or SDIFF where the first key is  (under locks)
    one server:  MULTI, SADD of each result, the command on these, DEL, EXEC

Sorted sets only if the scores do not depend on the order: minimum, maximum, or those of the first
key. Sums do.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import hiredis

from threadis.coordinator.base.command_table import ParsedCommand
from threadis.coordinator.base.offload import LARGE
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.keys.keyspace_events import command_events
from threadis.coordinator.keys.locks import Lock
from threadis.coordinator.multikey import oom_blocks
from threadis.coordinator.multikey.borrowing import NO_EXPIRY, Copy, check_size
from threadis.coordinator.multikey.copies import CopyBlock, CopyStep, LentKeys
from threadis.coordinator.multikey.phases import RefusedError

if TYPE_CHECKING:
    from threadis.coordinator.multikey.execution import Execution

# What the instance of the first key, and the others, are asked of their own keys; of sorted sets
# with their scores, where they count.
PARTS: Final = {
    "sunion": (b"SUNION", b"SUNION"),
    "sunionstore": (b"SUNION", b"SUNION"),
    "sinter": (b"SINTER", b"SINTER"),
    "sinterstore": (b"SINTER", b"SINTER"),
    "sdiff": (b"SDIFF", b"SUNION"),
    "sdiffstore": (b"SDIFF", b"SUNION"),
    "zunion": (b"ZUNION", b"ZUNION"),
    "zunionstore": (b"ZUNION", b"ZUNION"),
    "zinter": (b"ZINTER", b"ZINTER"),
    "zinterstore": (b"ZINTER", b"ZINTER"),
    "zdiff": (b"ZDIFF", b"ZUNION"),
    "zdiffstore": (b"ZDIFF", b"ZUNION"),
}
SCORES: Final = b"WITHSCORES"


class NotApplicableError(RefusedError):
    """It has to be done in another way, for instance for want of memory. Nothing was done."""


@dataclass(frozen=True, slots=True)
class SetCopy(Copy):
    """A set, lent as its members."""

    members: Sequence[bytes] = ()

    def restore(self, key: bytes, *options: bytes) -> Words:
        """Build the command that creates this set."""
        return [b"SADD", key, *self.members, *options]


@dataclass(frozen=True, slots=True)
class SortedSetCopy(Copy):
    """A sorted set, lent as its members, each with its score."""

    members: Sequence[bytes] = ()

    def restore(self, key: bytes, *options: bytes) -> Words:
        """Build the command that creates this sorted set."""
        return [
            b"ZADD",
            key,
            *itertools.chain(*zip(self.members[1::2], self.members[::2], strict=True)),
            *options,
        ]


class PartialOperation:
    """How the parts of a command are computed and combined."""

    def __init__(self, parsed: ParsedCommand) -> None:
        name = parsed.row.name
        self.is_sorted, self.is_difference = name.startswith("z"), "diff" in name
        self._first, self._others = PARTS[name]
        self._name = parsed.args[0]
        count = sum(not access.writes for access in parsed.keys)
        words = parsed.args[1 + len(parsed.keys) + self.is_sorted :]
        self.is_known = not self.is_sorted or (
            len(parsed.keys) - count == name.endswith("store") and self._knows(words, name)
        )
        self._options, self._words = [word for word in words if word.upper() != SCORES], words

    def _knows(self, words: Words, name: str) -> bool:
        """Whether no score depends on the order of the keys."""
        options = [word.upper() for word in words]
        if options[-1:] == [SCORES] and not name.endswith("store"):
            options.pop()
        if self.is_difference:
            return not options
        return options in ([b"AGGREGATE", b"MIN"], [b"AGGREGATE", b"MAX"])

    def question(self, keys: Sequence[bytes], *, is_first: bool) -> Words:
        """Build the command for an instance's part."""
        name = self._first if is_first else self._others
        if not self.is_sorted:
            return [name, *keys]
        if self.is_difference:
            return [name, b"%d" % len(keys), *keys, *([SCORES] if is_first else ())]
        return [name, b"%d" % len(keys), *keys, *self._options, SCORES]

    def copy(self, members: Sequence[bytes], *, is_first: bool) -> Copy:
        """Build a copy of an instance's result."""
        if self.is_sorted and (is_first or not self.is_difference):
            return SortedSetCopy(b"", NO_EXPIRY, members=members)
        return SetCopy(b"", NO_EXPIRY, members=members)

    def command(self, target: Sequence[bytes], names: Sequence[bytes]) -> Words:
        """Build the command on these copies."""
        if not self.is_sorted:
            return [self._name, *target, *names]
        return [self._name, *target, b"%d" % len(names), *names, *self._words]


def applies_to(parsed: ParsedCommand) -> bool:
    """Whether a command is one of these; not if a client subscribes to its events."""
    if parsed.row.name not in PARTS or len(parsed.keys) < LARGE or command_events.get():
        return False
    return PartialOperation(parsed).is_known


async def run(
    execution: "Execution", parsed: ParsedCommand, db: int, kind: Kind, lock: Lock
) -> bytes:
    """Run it; RefusedError if a server refuses, NotApplicableError if this way is not possible."""
    sources = [access.key for access in parsed.keys if not access.writes]
    target = next((access for access in parsed.keys if access.writes), None)
    parts = PartialOperation(parsed)
    by_owner: dict[int, list[bytes]] = defaultdict(list)
    for key, owner in zip(sources, execution.table.owners_by_name(db, sources), strict=True):
        by_owner[owner].append(key)
    asked = (
        execution.links.raw(index, [parts.question(keys, is_first=not at)], db=db)
        for at, (index, keys) in enumerate(by_owner.items())
    )
    replies = [reply for (reply,) in await asyncio.gather(*asked)]
    check_size(sum(map(len, replies)))
    names = [b"%d" % at for at in range(len(replies) + 1)]
    if target and target.key in names:
        names.remove(target.key)  # its value there is another one
    copies: dict[bytes, Copy] = {}
    for at, (name, reply) in enumerate(zip(names, replies, strict=False)):
        members = await long_replies.value(reply)
        if isinstance(members, hiredis.ReplyError):
            raise RefusedError(reply)
        if members:
            copies[name] = parts.copy(members, is_first=not at)
        if parts.is_sorted and b"-0" in members:
            raise NotApplicableError(reply)  # which of two nothings is left depends on the order
    words = parts.command([target.key] if target else [], names[: len(replies)])
    lent = LentKeys(execution.borrowing.scratch, is_swept=False, reads_all=False, writes_all=False)
    if target:
        lent.add(target)
        copies |= await execution.borrowing.fetch([target], db)
    lent.copies = copies
    block = CopyBlock({db: lent}, [CopyStep(replace(parsed, args=words), db)])
    home = execution.home(db, [access.key for access in parsed.keys])
    async with execution.links.lease(home, kind, lent.scratch) as link:
        try:
            found = await block.run(link, execution.borrowing, needs_memory=True)
        except RefusedError as error:
            if error.reply.startswith(oom_blocks.NO_MEMORY):
                raise NotApplicableError(error.reply) from error
            raise
    if changes := await block.changes(db, found):
        writes = execution.borrowing.writes(changes, db)
        await execution.commit(writes, lock, db, needs_memory=parsed.row.needs_memory)
    return block.replies(found)[0]
