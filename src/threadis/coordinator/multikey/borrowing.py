"""Borrowing: a command that only a server can compute runs on one instance, on copies of the keys.

The copies live in a database that clients cannot see, for the length of one MULTI … EXEC::

    each owner:  PEXPIRETIME, DUMP                     (under key locks)
    one server:  MULTI, RESTORE copies, DUMP what may change,
                 the commands, DUMP and PEXPIRETIME again, DEL copies, EXEC
    each owner:  RESTORE or DEL what changed           (one write, see commits)

``copies`` builds that block. So a command that fails, a script that is refused, or a process that
is killed leaves every key as it was.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threadis import own_names, resp
from threadis.coordinator.base.command_table import CommandTable, KeyAccess
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import LinkError, Links, Words
from threadis.coordinator.keys.keyspace_events import command_events
from threadis.coordinator.keys.own_reads import OwnReads
from threadis.coordinator.keys.write_parts import Part
from threadis.coordinator.multikey.phases import RefusedError

BORROW_LIMIT = 256 * 1024 * 1024  # bytes one command may borrow
# Returns all keys, their values and expiry times, and deletes them. Not FLUSHDB, because clients
# that track keys would be told of it.
READ_AND_DELETE_ALL = (
    own_names.SCRIPT_MARK
    + b"""
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    found[#found + 1] = key
    found[#found + 1] = redis.call('DUMP', key)
    found[#found + 1] = redis.call('PEXPIRETIME', key)
    redis.call('DEL', key)
end
return found
"""
)
EXACT_MOST = 2**53  # Lua's numbers
NO_EXPIRY, GONE = -1, -2  # PEXPIRETIME
# How DUMP begins for a small sorted set, and for a large one, which SORT makes of a small one.
CONVERTED = (b"\x11", b"\x05")
TOO_LATE = resp.error(
    "ERR threadis: a key that the script created expires so late that its time cannot be read"
)


@dataclass(frozen=True, slots=True)
class Copy:
    """A key's value as DUMP gives it, and when it expires (ms since 1970, or NO_EXPIRY)."""

    dump: bytes
    expires: int
    is_placeholder: bool = False  # exists, but its value does not matter: it will be overwritten

    def restore(self, key: bytes, *options: bytes) -> Words:
        """Build the command that makes the key this value."""
        if self.is_placeholder:
            ends = [] if self.expires == NO_EXPIRY else [b"PXAT", b"%d" % self.expires]
            return [b"SET", key, own_names.MARK, *ends]  # clients cannot write the same
        if self.expires == NO_EXPIRY:
            return [b"RESTORE", key, b"0", self.dump, *options]
        return [b"RESTORE", key, b"%d" % self.expires, self.dump, b"ABSTTL", *options]


# What keys are that have changed; None: gone.
Changes = dict[bytes, Copy | None]


class TooLargeError(LinkError):
    """The keys are larger than what one command may borrow."""


class Borrowing:
    """Makes copies, and writes changes back. The caller holds locks on all keys."""

    def __init__(
        self, links: Links, table: CommandTable, databases: int, own_reads: OwnReads
    ) -> None:
        self.databases = databases  # that clients may select
        self._links = links
        self._table = table
        self.own_reads = own_reads
        # Without memory copies are not made in the block in which they are used.
        self.alone = [asyncio.Lock() for _ in links.all_instances()]
        # The first of those for copies, without keys between two commands.
        self.scratch = own_names.copies(databases)

    async def fetch(self, keys: Iterable[KeyAccess], db: int) -> dict[bytes, Copy]:
        """Copy the existing keys from their owners; of keys never read, only that they exist."""
        some = list(keys)
        wanted, by_owner = await offload(len(some), self._wanted, some, db)
        mine = command_events.get()
        if mine:
            mine.lend(db, list(wanted))
        found = await asyncio.gather(
            *(self._fetch_from(index, names, db) for index, names in by_owner.items())
        )
        return await offload(len(wanted), self._found, wanted, found, db)

    def _found(
        self, wanted: Iterable[bytes], parts: Iterable[Mapping[bytes, Copy]], db: int
    ) -> dict[bytes, Copy]:
        """Combine the owners' copies."""
        copies = {key: copy for part in parts for key, copy in part.items()}
        if mine := command_events.get():
            limited = {key for key, copy in copies.items() if copy.expires != NO_EXPIRY}
            mine.give_back(db, [key for key in wanted if key not in limited])
        check_size(sum(len(copy.dump) for copy in copies.values()))
        return copies

    def _wanted(
        self, keys: Sequence[KeyAccess], db: int
    ) -> tuple[dict[bytes, bool], dict[int, dict[bytes, bool]]]:
        """Return whether each key is read; and the same for each owner."""
        wanted: dict[bytes, bool] = {}
        for access in keys:
            wanted[access.key] = wanted.get(access.key, False) or access.reads
        by_owner: dict[int, dict[bytes, bool]] = defaultdict(dict)
        owners = self._table.owners_by_name(db, list(wanted))
        for (key, reads), owner in zip(wanted.items(), owners, strict=True):
            by_owner[owner][key] = reads
        return wanted, by_owner

    async def _fetch_from(self, index: int, keys: dict[bytes, bool], db: int) -> dict[bytes, Copy]:
        questions = await offload(len(keys), _questions, keys)
        replies = await self.own_reads.ask(index, questions, db=db)
        if refused := await offload(len(replies), _refused, replies):  # for instance, it is loading
            raise RefusedError(refused)
        return await offload(len(keys), _copies, keys, await long_replies.values(replies))

    async def clean(self, index: int) -> None:
        """Delete copies that an interrupted command has left."""
        for at in range(own_names.COPIES):
            await self._links.raw(index, [[b"FLUSHDB"]], db=self.scratch + at)

    async def without_conversions(
        self, index: int, copies: Mapping[bytes, Copy], changes: Changes
    ) -> Changes:
        """Leave out keys whose encoding alone has changed: for a server that is no change, and
        WATCH ignores it.
        """
        doubtful = {
            key: new
            for key, new in changes.items()
            if new and (old := copies.get(key)) and _may_be_converted(old, new)
        }
        if not doubtful:
            return changes
        block: list[Words] = [[b"MULTI"]]
        for key, new in doubtful.items():  # a server chooses the encoding anew
            block += [Copy(new.dump, NO_EXPIRY).restore(key), [b"DUMP", key], [b"DEL", key]]
        *_, reply = await self._links.raw(index, [*block, [b"EXEC"]], db=self.scratch)
        if not reply.startswith(b"*"):  # there is no memory: the keys count as changed
            return changes
        dumps = (await long_replies.value(reply))[1::3]
        self.own_reads.of(index).hits += len(dumps)
        pairs = zip(doubtful, dumps, strict=True)
        same = {key for key, dump in pairs if copies[key].dump in (dump, doubtful[key].dump)}
        return {key: new for key, new in changes.items() if key not in same}

    def writes(self, changes: Changes, db: int) -> dict[int, Part]:
        """Convert changes to one part for each owner."""
        parts: dict[int, list[Words]] = defaultdict(list)
        for key, copy in changes.items():
            command = [b"DEL", key] if copy is None else copy.restore(key, b"REPLACE")
            parts[self._table.owner(db, key)].append(command)
        return dict(parts)


def _may_be_converted(old: Copy, new: Copy) -> bool:
    """Whether the value may be the one that was lent, although its dump differs."""
    if old.is_placeholder or old.expires != new.expires:
        return False
    return old.dump == new.dump or (old.dump[:1], new.dump[:1]) == CONVERTED


def check_size(total: int) -> None:
    """Raise TooLargeError if so many bytes may not be borrowed."""
    if total > BORROW_LIMIT:
        raise TooLargeError(
            f"ERR threadis: this command needs {total} bytes from other instances; the limit is "
            f"{BORROW_LIMIT}. Give its keys a common {{hash tag}}"
        )


def _questions(keys: Mapping[bytes, bool]) -> list[Words]:
    """Build the questions to an owner about its keys."""
    questions: list[Words] = []
    for key, reads in keys.items():
        questions.append([b"PEXPIRETIME", key])
        if reads:
            questions.append([b"DUMP", key])
    return questions


def _copies(keys: Mapping[bytes, bool], replies: Sequence[Any]) -> dict[bytes, Copy]:
    """Parse its replies."""
    said = iter(replies)
    found = {}
    for key, reads in keys.items():
        expires = int(next(said))
        dump = next(said) if reads else b""
        if expires != GONE and isinstance(dump, bytes):
            found[key] = Copy(dump, expires, is_placeholder=not reads)
    return found


def surrounding_commands(
    copies: dict[bytes, Copy], written: Sequence[bytes], *, sweeps: bool = False
) -> tuple[list[Words], list[Words]]:
    """Return the commands before and after those that run on copies."""
    old_dumps: list[Words] = [[b"DUMP", key] for key in written if key in copies]
    restores = [copy.restore(key) for key, copy in copies.items()]
    if sweeps:
        return [*restores, *old_dumps], [[b"EVAL", READ_AND_DELETE_ALL, b"0"]]
    dumps: list[Words] = [[b"DUMP", key] for key in written]
    ends: list[Words] = [[b"PEXPIRETIME", key] for key in written]
    names = list(dict.fromkeys([*copies, *written]))
    clear: list[Words] = [[b"DEL", *names]] if names else []
    return [*restores, *old_dumps], [*dumps, *ends, *clear]


CurrentValues = Mapping[bytes, tuple[bytes, int]]  # what keys are now, and when they expire


def _current_values(written: Sequence[bytes], after: Sequence[Any]) -> CurrentValues:
    """Parse what ``surrounding_commands`` returned after the commands, without a sweep."""
    count = len(written)
    found = zip(written, after[:count], after[count : 2 * count], strict=True)
    return {key: (dump, int(when)) for key, dump, when in found if dump is not None}


def _current_values_of_all(copies: dict[bytes, Copy], said: Sequence[Any]) -> CurrentValues:
    """The same, with a sweep."""
    now = {}
    for key, dump, when in zip(said[::3], said[1::3], said[2::3], strict=True):
        exact = when
        if when >= EXACT_MOST:  # it is exact only if it is what it was
            exact = copies[key].expires if key in copies else NO_EXPIRY
            if float(exact) != float(when):
                raise RefusedError(TOO_LATE)
        if isinstance(dump, bytes):  # otherwise the key has just expired
            now[key] = (dump, exact)
    return now


async def find_changes(
    copies: dict[bytes, Copy],
    written: Sequence[bytes],
    before: Sequence[bytes],
    after: Sequence[bytes],
    db: int,
    *,
    compares: bool,
    sweeps: bool,
) -> Changes:
    """Find out from the replies to ``surrounding_commands`` what keys have become; of all keys, or
    if it ``compares``, of those that differ. RefusedError if a copy could not be made.
    """
    size = len(copies) + len(written)
    if refused := await offload(size, _refused, before[: len(copies)]):
        raise RefusedError(refused)
    old, new = await long_replies.values(before[len(copies) :]), await long_replies.values(after)
    await offload(size, _tell_of_ends, copies, written, old, db)
    if sweeps:
        now = await offload(len(new[0]), _current_values_of_all, copies, new[0])
    else:
        now = await offload(size, _current_values, written, new)
    if not compares:
        return {key: Copy(*now[key]) if key in now else None for key in written}
    return await offload(size, _changes, copies, written, old, now)


def _refused(replies: Iterable[bytes]) -> bytes | None:
    """Return the first error."""
    return next((reply for reply in replies if reply.startswith(b"-")), None)


def _tell_of_ends(
    copies: Collection[bytes], written: Iterable[bytes], dumps: Iterable[Any], db: int
) -> None:
    """Report keys that were lent, and had expired when the commands began."""
    if mine := command_events.get():
        had = (key for key in written if key in copies)
        for key, dump in zip(had, dumps, strict=True):
            if dump is None:
                mine.add_first(db, key)


def _changes(
    copies: dict[bytes, Copy], written: Sequence[bytes], dumps: Sequence[Any], now: CurrentValues
) -> Changes:
    """Return the changes of keys that may have been written."""
    had = [key for key in written if key in copies]
    old_values = dict(zip(had, dumps, strict=True))
    changes: Changes = {}
    for key in written:
        old, (new, when) = old_values.get(key), now.get(key, (None, GONE))
        known = copies[key].expires if key in copies else GONE
        if new is None:
            if old is not None:
                changes[key] = None
        elif key in copies and copies[key].is_placeholder:
            if new != old:
                changes[key] = Copy(new, when)
        elif new != old or when != known:
            changes[key] = Copy(new, when)
    return changes
