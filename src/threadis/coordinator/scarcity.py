"""Blocks for a server that has no memory left.

At ``maxmemory`` without eviction a server queues little or nothing between MULTI and EXEC, and
refuses what may need memory: RESTORE of a copy, SET of a record. A script with ``allow-oom`` is
one block, too, and may do both. Only for commands that one server would run at that moment: what
needs memory for itself is refused before.
"""

from collections.abc import Iterable, Sequence

from threadis import _core, resp
from threadis.coordinator.links import Words

NO_MEMORY = b"-OOM "
SCRIPT = b"""#!lua flags=allow-oom
redis.setresp(tonumber(ARGV[1]))
local at, replies = 2, {}
while ARGV[at] do
    local last = at + tonumber(ARGV[at])
    local reply = redis.pcall(unpack(ARGV, at + 1, last))
    if reply == nil then reply = false end
    replies[#replies + 1] = reply
    at = last + 1
end
return replies
"""
HAVE_NULLS = frozenset(
    b"mget hmget hgetex hgetdel zmscore geopos geohash sort sort_ro xreadgroup xclaim xautoclaim "
    b"xinfo xpending object".split()
)
WORDS_MOST = 5000  # of one command: what Lua can unpack at once is a little more


def block(commands: Sequence[Words], protocol: int) -> Words:
    """Build one command that runs all of these; its reply has those of all."""
    flat: list[bytes] = []
    for words in commands:
        flat += [b"%d" % len(words), *words]
    return [b"EVAL", SCRIPT, b"0", b"%d" % protocol, *flat]


def results(reply: bytes) -> list[bytes] | None:
    """The replies; None if it was refused."""
    if not reply.startswith(b"*"):
        return None
    return [b"_\r\n" if one == b"#f\r\n" else one for one in _core.elements(reply)]


def tells(commands: Iterable[Words], protocol: int) -> bool:
    """Whether Lua can tell their replies: in RESP3 it loses what is null inside of an array."""
    return protocol == 2 or not any(
        words[0].lower() in HAVE_NULLS and words[-1] != b">" for words in commands
    )


POPS = {b"BLPOP": b"LPOP", b"BRPOP": b"RPOP", b"BZPOPMIN": b"ZPOPMIN", b"BZPOPMAX": b"ZPOPMAX"}


def at_once(words: Words) -> Words:
    """Build a command that does not wait from one for a key that would: scripts may not."""
    name = words[0].upper()
    if name in POPS:
        return [POPS[name], words[1]]
    if name in (b"BLMPOP", b"BZMPOP"):
        return [name[1:], *words[2:]]
    upper = [word.upper() for word in words]
    if name in (b"XREAD", b"XREADGROUP") and b"BLOCK" in upper[: upper.index(b"STREAMS")]:
        at = upper.index(b"BLOCK")
        return [*words[:at], *words[at + 2 :]]
    return words


def as_waited(words: Words, reply: bytes, protocol: int) -> bytes:
    """The reply to the command from which ``at_once`` has made another."""
    if reply in (*resp.NULLS, b"*0\r\n"):
        return resp.null_array(protocol)
    name = words[0].upper()
    if name not in POPS or reply.startswith(b"-"):
        return reply
    parts = [reply] if name in (b"BLPOP", b"BRPOP") else _core.elements(reply)
    return resp.array([resp.bulk(words[1]), *parts])
