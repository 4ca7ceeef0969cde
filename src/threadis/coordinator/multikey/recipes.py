"""Commands over several instances that are a few ordinary commands on each side.

They are cheaper than borrowing, and have the keyspace events of one server. Each recipe runs under
locks on its keys. It reads first, replies like one server if there is nothing to do, and otherwise
writes everything at once.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis

from threadis import resp
from threadis.coordinator.base.command_table import KeyAccess, ParsedCommand
from threadis.coordinator.base.databases import NUMBER, OUTSIDE
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import long_replies, lookup
from threadis.coordinator.instances.links import Kind, Words, value
from threadis.coordinator.keys.keyspace_events import MISS, command_events
from threadis.coordinator.keys.locks import Key, Lock
from threadis.coordinator.multikey.oom_blocks import WORDS_MOST
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.streams import read_groups, read_streams

if TYPE_CHECKING:
    from threadis.coordinator.multikey.execution import Execution


@dataclass(frozen=True, slots=True)
class Job:
    """One command, and what it needs to run."""

    execution: "Execution"
    parsed: ParsedCommand
    db: int
    kind: Kind
    lock: Lock

    @property
    def args(self) -> Sequence[bytes]:
        """The client's arguments."""
        return self.parsed.args

    def owner(self, key: bytes, db: int | None = None) -> int:
        """Return the instance of a key."""
        return self.execution.table.owner(self.db if db is None else db, key)

    async def ask(self, key: bytes, *words: bytes, db: int | None = None) -> Any:
        """Ask a key's instance; RefusedError if the reply is an error."""
        where = self.db if db is None else db
        reply = (await self.look(key, [words], where))[0]
        found = await long_replies.value(reply)
        if isinstance(found, hiredis.ReplyError):
            raise RefusedError(reply)
        return found

    async def look(self, key: bytes, questions: list[Words], db: int) -> list[bytes]:
        """Ask a key's instance questions of our own, which INFO does not count."""
        reads = self.execution.own_reads
        return await reads.ask(self.owner(key, db), questions, db=db, kind=self.kind)

    async def raw(self, key: bytes, commands: list[Words], db: int | None = None) -> list[bytes]:
        """Send commands to a key's instance; return the replies as they came."""
        where = self.db if db is None else db
        links = self.execution.links
        return await links.raw(self.owner(key, where), commands, db=where, kind=self.kind)

    async def ask_instance(self, index: int, questions: list[Words]) -> list[bytes]:
        """Ask an instance questions of our own; return the replies as they came."""
        reads = self.execution.own_reads
        return await reads.ask(index, questions, db=self.db, kind=self.kind)

    async def refusal(self) -> bytes:
        """Return the server's syntax error; the command runs where there are no keys."""
        links, scratch = self.execution.links, self.execution.borrowing.scratch
        index = self.owner(self.parsed.keys[0].key) if self.parsed.keys else 0
        return (await links.raw(index, [self.args], db=scratch, kind=self.kind))[0]

    async def write(self, commands: Sequence[tuple[bytes, Words]]) -> list[bytes]:
        """Write everything at once: pairs of a key and a command for its instance."""
        parts: dict[int, list[Words]] = defaultdict(list)
        places = []
        for key, words in commands:
            index = self.owner(key)
            places.append((index, len(parts[index])))
            parts[index].append(words)
        steps = {place: step for step, place in enumerate(places)}
        needs_memory = self.parsed.row.needs_memory
        replies = await self.execution.commit(
            dict(parts), self.lock, self.db, self.kind, needs_memory=needs_memory, steps=steps
        )
        return [replies[index][at] for index, at in places]


def _by_owner(job: Job, keys: Sequence[bytes]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = defaultdict(list)
    owners = job.execution.table.owners_by_name(job.db, keys)
    for key, owner in zip(keys, owners, strict=True):
        found[owner].append(key)
    return found


async def _delete(job: Job) -> bytes:
    """DEL, UNLINK."""
    most = WORDS_MOST
    if command_events.get():  # one key at a time
        groups, most = {0: list(job.args[1:])}, 1
    else:
        groups = await offload(len(job.args), _by_owner, job, job.args[1:])
    commands = [
        (keys[at], [job.args[0], *keys[at : at + most]])
        for keys in groups.values()
        for at in range(0, len(keys), most)
    ]
    replies = await job.write(commands)
    return b":%d\r\n" % sum(int(value(reply)) for reply in replies)


def _pairs(job: Job, first: int, last: int) -> list[list[bytes]]:
    """Return keys with their values, a list for each instance; or for each key, if events are
    published.
    """
    if command_events.get():
        return [list(job.args[at : at + 2]) for at in range(first, last, 2)]
    groups: dict[int, list[bytes]] = defaultdict(list)
    owners = job.execution.table.owners_by_name(job.db, job.args[first:last:2])
    for at, owner in zip(range(first, last, 2), owners, strict=True):
        groups[owner].extend(job.args[at : at + 2])
    return list(groups.values())


async def _mset(job: Job) -> bytes:
    if len(job.args) % 2 == 0:
        return await job.refusal()
    groups = await offload(len(job.args), _pairs, job, 1, len(job.args))
    return (await job.write([(pairs[0], [b"MSET", *pairs]) for pairs in groups]))[0]


async def _count_existing(job: Job, keys: Sequence[bytes]) -> int:
    """Count how many of the keys exist."""
    groups = await offload(len(keys), _by_owner, job, keys)
    asked = (job.ask(names[0], b"EXISTS", *names) for names in groups.values())
    return sum(map(int, await asyncio.gather(*asked)))


async def _msetnx(job: Job) -> bytes:
    if len(job.args) % 2 == 0:
        return await job.refusal()
    if await _count_existing(job, job.args[1::2]):
        return b":0\r\n"
    await _mset(job)
    return b":1\r\n"


# Any number of conditions and KEEPTTL, at most one expiration.
_MSETEX_OPTIONS = re.compile(
    rb"(?:(?:NX|XX|KEEPTTL) )*(?:(?:EX|PX|EXAT|PXAT) [1-9][0-9]* )?(?:(?:NX|XX|KEEPTTL) )*",
    re.IGNORECASE,
)


async def _msetex(job: Job) -> bytes:
    """MSETEX numkeys key value … [NX|XX] [EX …]."""
    keys = [access.key for access in job.parsed.keys]
    end = 2 + 2 * len(keys)
    written = b"".join(word + b" " for word in job.args[end:])
    conditions = {word.upper() for word in job.args[end:]} & {b"NX", b"XX"}
    if end > len(job.args) or not _MSETEX_OPTIONS.fullmatch(written) or len(conditions) == 2:
        return await job.refusal()
    options = [word for word in job.args[end:] if word.upper() not in (b"NX", b"XX")]
    if conditions:
        existing = await _count_existing(job, list(dict.fromkeys(keys)))
        wanted = 0 if b"NX" in conditions else len(set(keys))
        if existing != wanted:
            return b":0\r\n"
    groups = await offload(end, _pairs, job, 2, end)
    commands: list[tuple[bytes, Words]] = [
        (pairs[0], [job.args[0], b"%d" % (len(pairs) // 2), *pairs, *options]) for pairs in groups
    ]
    return (await job.write(commands))[0]


async def _move_value(job: Job, source: bytes, target: bytes, *, only_new: bool) -> bool | None:
    """RENAME's work: None if the source does not exist, False if the target does."""
    await _notice_expiry(job, target, job.db)
    copies = await job.execution.borrowing.fetch([KeyAccess(source, True, True)], job.db)
    copy = copies.get(source)
    if copy is None:
        return None
    if only_new and await job.ask(target, b"EXISTS", target):
        return False
    options = [b"REPLACE", *await _eviction_options(job, source)]
    parts: dict[int, list[Words]] = defaultdict(list)
    parts[job.owner(source)].append([b"DEL", source])
    parts[job.owner(target)].append(copy.restore(target, *options))
    needs_memory = job.parsed.row.needs_memory
    await job.execution.commit(
        dict(parts), job.lock, job.db, needs_memory=needs_memory, makes_new=True
    )
    if mine := command_events.get():
        mine.add(job.db, b"rename_from", source)
        mine.add(job.db, b"rename_to", target)
    return True


async def _notice_expiry(job: Job, key: bytes, db: int) -> None:
    """Read a key, so that its instance publishes an expired event if its time is over, while a
    client subscribes to events; RESTORE would overwrite the key silently.
    """
    if command_events.get():
        await job.look(key, [[b"PEXPIRETIME", key]], db)


async def _eviction_options(job: Job, key: bytes) -> list[bytes]:
    """Return RESTORE's options that keep a key's idle time or frequency."""
    idle = value((await job.look(key, [[b"OBJECT", b"IDLETIME", key]], job.db))[0])
    if isinstance(idle, int):
        return [b"IDLETIME", b"%d" % idle]
    freq = value((await job.look(key, [[b"OBJECT", b"FREQ", key]], job.db))[0])
    return [b"FREQ", b"%d" % freq] if isinstance(freq, int) else []


async def _rename(job: Job) -> bytes:
    moved = await _move_value(job, job.args[1], job.args[2], only_new=False)
    return resp.OK if moved else b"-ERR no such key\r\n"


async def _renamenx(job: Job) -> bytes:
    moved = await _move_value(job, job.args[1], job.args[2], only_new=True)
    return b"-ERR no such key\r\n" if moved is None else b":%d\r\n" % moved


_OUT_OF_RANGE = b"-ERR DB index is out of range\r\n"


def _copy_options(args: Sequence[bytes], db: int) -> tuple[int, bool] | None:
    """Return COPY's database and REPLACE; None if the syntax is wrong."""
    target, replace, at = db, False, 3
    while at < len(args):
        word = args[at].upper()
        if word == b"REPLACE":
            replace = True
            at += 1
        elif word == b"DB" and at + 1 < len(args) and NUMBER.fullmatch(args[at + 1]):
            if target != OUTSIDE:  # which is an error, whatever follows
                target = int(args[at + 1])
            at += 2
        else:
            return None
    return target, replace


def _count_read(job: Job, key: bytes, *, is_there: bool) -> None:
    """Count the key that the command itself reads: once, as one server does."""
    reads = job.execution.own_reads.of(job.owner(key))
    if is_there:
        reads.hits -= 1
    else:
        reads.misses -= 1
        if mine := command_events.get():
            mine.add(job.db, b"keymiss", key, MISS)


async def _copy(job: Job) -> bytes:
    source, target = job.args[1], job.args[2]
    options = _copy_options(job.args, job.db)
    if options is None:
        return await job.refusal()
    if options[0] >= job.execution.borrowing.databases:
        return _OUT_OF_RANGE
    db, replace = options
    here = job.owner(source)
    if here == job.owner(target, db):
        return (await job.write([(source, job.args)]))[0]
    copies = await job.execution.borrowing.fetch([KeyAccess(source, True, False)], job.db)
    _count_read(job, source, is_there=source in copies)
    if source not in copies:
        return b":0\r\n"
    if not replace and await job.ask(target, b"EXISTS", target, db=db):
        return b":0\r\n"
    await _notice_expiry(job, target, db)
    restore = copies[source].restore(target, b"REPLACE")
    await job.execution.commit(
        {job.owner(target, db): [restore]}, job.lock, db, job.kind, makes_new=True
    )
    if mine := command_events.get():
        mine.add(db, b"copy_to", target)
    return b":1\r\n"


async def _move(job: Job) -> bytes:
    """MOVE: the other database may have the key on another instance."""
    key, db = job.args[1], int(job.args[2])
    if db >= job.execution.borrowing.databases:
        return _OUT_OF_RANGE
    here, there = job.owner(key), job.owner(key, db)
    if here == there:
        return (await job.write([(key, job.args)]))[0]
    copies = await job.execution.borrowing.fetch([KeyAccess(key, True, True)], job.db)
    if key not in copies or await job.ask(key, b"EXISTS", key, db=db):
        return b":0\r\n"
    restore = copies[key].restore(key, *await _eviction_options(job, key))
    inside: list[Words] = [[b"SELECT", b"%d" % db], restore, [b"SELECT", b"%d" % job.db]]
    parts: dict[int, Sequence[Words]] = {here: [[b"DEL", key]], there: inside}
    await job.execution.commit(
        parts, job.lock, job.db, job.kind, needs_memory=False, makes_new=True
    )
    if mine := command_events.get():
        mine.add(job.db, b"move_from", key)
        mine.add(db, b"move_to", key)
    return b":1\r\n"


async def _move_element(job: Job) -> bytes:
    """LMOVE, RPOPLPUSH."""
    source, target = job.args[1], job.args[2]
    ends = [word.upper() for word in job.args[3:5]] or [b"RIGHT", b"LEFT"]
    if not set(ends) <= {b"LEFT", b"RIGHT"}:
        return await job.refusal()
    at = b"0" if ends[0] == b"LEFT" else b"-1"
    found = await job.ask(source, b"LRANGE", source, at, at)
    if not found:
        return resp.null(job.kind.resp)
    await job.ask(target, b"LLEN", target)  # checks the type
    pop = b"LPOP" if ends[0] == b"LEFT" else b"RPOP"
    push = b"LPUSH" if ends[1] == b"LEFT" else b"RPUSH"
    await job.write([(target, [push, target, found[0]]), (source, [pop, source])])
    return await long_replies.bulk(found[0])


async def _move_member(job: Job) -> bytes:
    """SMOVE."""
    source, target, member = job.args[1:4]
    if not await job.ask(source, b"EXISTS", source):
        return b":0\r\n"
    is_member = await job.ask(source, b"SISMEMBER", source, member)
    await job.ask(target, b"SCARD", target)  # checks the type
    if not is_member:
        return b":0\r\n"
    await job.write([(source, [b"SREM", source, member]), (target, [b"SADD", target, member])])
    return b":1\r\n"


async def _pop_first(job: Job) -> bytes:
    """LMPOP, ZMPOP: pop from the first key that has elements."""
    first, *others = (access.key for access in job.parsed.keys)
    name, options = job.args[0], job.args[3 + len(others) :]
    if not options:  # the number of keys is too large
        return await job.refusal()
    reply = (await job.raw(first, [[name, b"1", first, *options]]))[0]  # or the error
    others = others if reply in resp.NULLS else []
    async for key in lookup.present(others, job.owner, job.ask_instance):
        reply = (await job.raw(key, [[name, b"1", key, *options]]))[0]
        if reply not in resp.NULLS:
            break
    return reply


Recipe = Callable[[Job], Awaitable[bytes]]

RECIPES: dict[str, Recipe] = {
    "del": _delete,
    "unlink": _delete,
    "mset": _mset,
    "msetnx": _msetnx,
    "msetex": _msetex,
    "rename": _rename,
    "renamenx": _renamenx,
    "copy": _copy,
    "move": _move,
    "lmove": _move_element,
    "rpoplpush": _move_element,
    "smove": _move_member,
    "lmpop": _pop_first,
    "zmpop": _pop_first,
    "xread": read_streams,
    "xreadgroup": read_groups,
}


def reaches_other_databases(parsed: ParsedCommand) -> bool:
    """Whether a command may write in another database."""
    return parsed.row.name == "move" or (parsed.row.name == "copy" and len(parsed.args) > 4)


def other_databases(parsed: ParsedCommand, db: int) -> list[Key]:
    """Return a command's keys in another database."""
    if parsed.row.name == "copy":
        options = _copy_options(parsed.args, db)
        if options and options[0] not in (db, OUTSIDE):
            return [(options[0], parsed.args[2], True)]
    elif parsed.row.name == "move" and NUMBER.fullmatch(parsed.args[2]):
        target = int(parsed.args[2])
        return [(target, parsed.args[1], True)] if target not in (db, OUTSIDE) else []
    return []
