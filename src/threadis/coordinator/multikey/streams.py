"""XREAD and XREADGROUP over several instances: one command on each, then merged."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from threadis import _core, resp
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import lookup
from threadis.coordinator.instances.links import Words, value
from threadis.coordinator.keys.stream_read import NEW, StreamRead, field, parse

if TYPE_CHECKING:
    from threadis.coordinator.multikey.recipes import Job

ID: Final = re.compile(rb"\d{1,19}(-\d{1,19})?|>")
LAST: Final = b"+"  # the last entry of now, on newer servers


async def read_streams(job: "Job") -> bytes:
    """XREAD: ask every owner; if one returns an error, return that of the first stream."""
    read = parse(job.args)
    if read is None:
        return await job.refusal()
    groups = await offload(len(read.keys), _by_owner, job, read)
    replies = {}
    for index, (keys, ids) in groups.items():
        replies[index] = (await job.raw(keys[0], [read.words(keys, ids)]))[0]
    if any(reply.startswith(b"-") for reply in replies.values()):
        async for _, reply in _of_each(job, read, lambda one: read.words([one[0]], [one[1]])):
            if reply.startswith(b"-"):
                return reply
    return _merge(job, read, replies)


Named = tuple[bytes, bytes]  # key, id


def _of_each(
    job: "Job", read: StreamRead, question: Callable[[Named], Words]
) -> AsyncIterator[tuple[Named, bytes]]:
    """Ask a question about each stream."""
    named = list(zip(read.keys, read.ids, strict=True))
    return lookup.replies(named, lambda one: job.owner(one[0]), question, job.ask_instance)


async def read_groups(job: "Job") -> bytes:
    """XREADGROUP: check that every stream has the group, then read on all instances or none."""
    read = parse(job.args)
    if read is None:
        return await job.refusal()
    infos = _of_each(job, read, lambda named: [b"XINFO", b"GROUPS", named[0]])
    async for (key, entry), info_reply in infos:
        groups = value(info_reply)
        names = [field(info, b"name") for info in groups] if isinstance(groups, list) else []
        if read.group not in names or not ID.fullmatch(entry):
            # It delivers nothing, and returns the server's error.
            reply = (await job.raw(key, [read.words([key], [entry])]))[0]
            if reply.startswith(b"-"):  # the server has read those before it
                at = read.keys.index(key)
                job.execution.own_reads.of(job.owner(key)).hits -= at
                return reply
    parts = await offload(len(read.keys), _by_owner, job, read)
    commands = [(keys[0], read.words(keys, ids)) for keys, ids in parts.values()]
    replies = await job.write(commands)
    refused = next((reply for reply in replies if reply.startswith(b"-")), None)
    return refused or _merge(job, read, dict(zip(parts, replies, strict=True)))


def _by_owner(job: "Job", read: StreamRead) -> dict[int, tuple[list[bytes], list[bytes]]]:
    groups: dict[int, tuple[list[bytes], list[bytes]]] = defaultdict(lambda: ([], []))
    owners = job.execution.table.owners_by_name(job.db, read.keys)
    for key, entry, owner in zip(read.keys, read.ids, owners, strict=True):
        keys, ids = groups[owner]
        keys.append(key)
        ids.append(entry)
    return dict(groups)


def _merge(job: "Job", read: StreamRead, replies: dict[int, bytes]) -> bytes:
    """Merge the streams in the client's order; those without entries are left out."""
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for reply in replies.values():
        if reply in resp.NULLS:
            continue
        parts = _core.elements(reply)
        if reply.startswith(b"%"):
            for name, entries in zip(parts[::2], parts[1::2], strict=True):
                found[value(name)].append(name + entries)
        else:
            for pair in parts:
                found[value(pair)[0]].append(pair)
    merged = [found[read.keys[at]].pop(0) for at in _with_entries(read, found)]
    if not merged:
        return resp.null_array(job.kind.resp)
    head = b"%%%d\r\n" if job.kind.resp == 3 else b"*%d\r\n"
    return head % len(merged) + b"".join(merged)


def _with_entries(read: StreamRead, found: dict[bytes, list[bytes]]) -> list[int]:
    """Return the streams that have entries; of one that is named twice, the lowest ids."""
    named: dict[bytes, list[int]] = defaultdict(list)
    for at, key in enumerate(read.keys):
        if key in found:
            named[key].append(at)
    lowest = [
        sorted(places, key=lambda at: _rank(read, at))[: len(found[key])]
        for key, places in named.items()
    ]
    return sorted(at for places in lowest for at in places)


def _rank(read: StreamRead, at: int) -> tuple[int, ...]:
    """Sort key for occurrences of one stream: a higher one has entries only if a lower one has."""
    entry = read.ids[at]
    if entry == NEW:
        return (2**64,)
    if entry == LAST:  # the last entry, always there
        return (-1,)
    if read.group:  # what was delivered before is always told of; what is new, once
        return (entry == b">",)
    return tuple(int(part) for part in entry.split(b"-"))
