"""SCAN and RANDOMKEY over all instances."""

import random

import hiredis

from threadis import _core, resp
from threadis.coordinator.instances.links import Kind, LinkError, Links, Words, value

NOT_OURS = 2**56  # above all cursors that we have given to clients
SCAN_COUNT = 10  # keys that SCAN looks at if the client does not say how many


async def random_key(command: _core.Command, links: Links) -> bytes:
    """RANDOMKEY: the instance is drawn in proportion to its number of keys, so every key is equally
    likely.
    """
    db = command.info.db
    left = dict(enumerate(await links.call_all(b"DBSIZE", db=db)))
    while any(left.values()):
        index = random.choices(list(left), weights=list(left.values()))[0]  # noqa: S311
        key = await links.call(index, b"RANDOMKEY", db=db)
        if isinstance(key, hiredis.ReplyError):
            return resp.error(str(key))
        if key is not None:
            return resp.bulk(key)
        left[index] = 0  # its last key was deleted meanwhile
    return resp.null(command.info.resp)


async def scan(command: _core.Command, links: Links) -> bytes:
    """SCAN 0: if one call is enough for all keys, return all of them, as one server does.

    Otherwise the first instance's; from there on the cursor contains the instance
    (``routing/scan_cursor.rs``). A cursor with blanks or signs comes here, too: the first instance
    decides whether it is valid.
    """
    args, db, kind = command.args, command.info.db, Kind(resp=command.info.resp)
    first = (await links.raw(0, [args], db=db, kind=kind))[0]
    if first.startswith(b"-"):
        return first
    if begin := _cursor(args[1]):
        return await _go_on(begin, command, links)
    cursor, keys = _scanned(first)
    if not await _is_small(links, db, _count(args)):
        following = cursor * links.count if cursor else 1
        return resp.array([resp.bulk(b"%d" % following), resp.array(keys)])
    for index in links.all_instances():
        is_begun = index == 0
        while cursor or not is_begun:
            words = [args[0], b"%d" % cursor, *args[2:]]
            reply = (await links.raw(index, [words], db=db, kind=kind))[0]
            if reply.startswith(b"-"):
                return reply
            is_begun, (cursor, more) = True, _scanned(reply)
            keys += more
    return resp.array([resp.bulk(b"0"), resp.array(keys)])


def _cursor(word: bytes) -> int:
    """Parse a cursor that a server has accepted, as C's strtoull does."""
    return int(word.split(b"\0")[0] or b"0") % 2**64


async def _go_on(cursor: int, command: _core.Command, links: Links) -> bytes:
    """Continue from a cursor as workers do; see ``decode`` of ``routing/scan_cursor.rs``."""
    index, own = cursor % links.count, cursor // links.count
    if cursor >= NOT_OURS:
        index, own = links.count - 1, cursor
    words, db = [command.args[0], b"%d" % own, *command.args[2:]], command.info.db
    reply = (await links.raw(index, [words], db=db, kind=Kind(resp=command.info.resp)))[0]
    if reply.startswith(b"-"):
        return reply
    found, keys = _scanned(reply)
    if found:
        following = found * links.count + index
    else:
        following = index + 1 if index + 1 < links.count else 0
    return resp.array([resp.bulk(b"%d" % following), resp.array(keys)])


def _scanned(reply: bytes) -> tuple[int, list[bytes]]:
    cursor, keys = _core.elements(reply)
    return int(value(cursor)), _core.elements(keys)


def _count(args: Words) -> int:
    """Return how many keys one call looks at; the server has checked the number."""
    options = [word.upper() for word in args[2::2]]
    return int(args[3 + 2 * options.index(b"COUNT")]) if b"COUNT" in options else SCAN_COUNT


async def _is_small(links: Links, db: int, count: int) -> bool:
    """Whether a database has at most so many keys; False if that is not known."""
    try:
        sizes = await links.call_all(b"DBSIZE", db=db)
    except LinkError:
        return False
    return bool(sum(sizes) <= count)
