"""Blocks for a server that has no memory left.

At ``maxmemory`` without eviction a server queues little or nothing between MULTI and EXEC, and
refuses what may need memory: RESTORE of a copy, SET of a record. A script with ``allow-oom`` is
one block, too, and may do both. Only for commands that one server would run at that moment: what
needs memory for itself is refused before.
"""

import math
from collections.abc import Iterable, Sequence

from threadis import _core, ours, resp
from threadis.coordinator.base.numbers import parse_integer, parse_seconds
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import Words
from threadis.coordinator.keys import stream_read
from threadis.coordinator.keys.waiters import ENDS

NO_MEMORY = b"-OOM "
FALSE = b"#f\r\n"
SCRIPT = (
    b"""#!lua flags=allow-oom
%s
local at, replies = 1, {}
while ARGV[at] do
    redis.setresp(tonumber(ARGV[at]))
    local last = at + 1 + tonumber(ARGV[at + 1])
    local reply = redis.pcall(unpack(ARGV, at + 2, last))
    if reply == nil then reply = false end
    replies[#replies + 1] = reply
    at = last + 1
end
return replies
"""
    % ours.SCRIPT_MARK
)
# What replies with nulls inside of an array, which Lua loses in RESP3 …
HAVE_NULLS = frozenset(b"zmscore geopos xreadgroup xclaim xautoclaim xinfo xpending object".split())
# … unless it is told in RESP2, in which it is the same else; or but for the map, of which Lua loses
# the order.
MAPS = frozenset(b"xread xreadgroup".split())
TOLD_IN_RESP2 = MAPS.union(b"mget hmget hgetex hgetdel geohash sort sort_ro".split())
NULL_ARRAYS = frozenset((b"LMPOP", b"ZMPOP", b"XREAD", b"XREADGROUP"))
WORDS_MOST = 5000  # of one command: what Lua can unpack at once is a little more


def block(commands: Sequence[Words], protocol: int) -> Words:
    """Build one command that runs all of these; its reply has those of all."""
    flat: list[bytes] = []
    for words in map(_nonblocking, commands):
        told_in = 2 if words[0].lower() in TOLD_IN_RESP2 else protocol
        flat += [b"%d" % told_in, b"%d" % len(words), *words]
    return [b"EVAL", SCRIPT, b"0", *flat]


async def results(reply: bytes, commands: Sequence[Words], protocol: int) -> list[bytes] | None:
    """The replies to these commands; None if the block was refused."""
    if not reply.startswith(b"*"):
        return None
    replies = await long_replies.elements(reply)
    return await offload(len(replies), _restore_nulls, replies, commands, protocol)


def _restore_nulls(told: Sequence[bytes], commands: Sequence[Words], protocol: int) -> list[bytes]:
    """Put nulls for what Lua makes of them."""
    replies = [_with_nulls(one) for one in told]
    for at, words in enumerate(commands):
        if wrong := _timeout_error(words):
            replies[at] = wrong
        elif replies[at] == resp.null(2) and _has_null_array(words):
            replies[at] = resp.null_array(2)
        elif words[0].upper() in POPS:
            replies[at] = _as_blocking_reply(words, replies[at])
        elif protocol == 3 and words[0].lower() in MAPS and replies[at].startswith(b"*"):
            pairs = [b"".join(_core.elements(pair)) for pair in _core.elements(replies[at])]
            replies[at] = b"%%%d\r\n" % len(pairs) + b"".join(pairs)
    return replies


def _has_null_array(words: Words) -> bool:
    """Whether nothing is an array that is not there: Lua knows only one kind of nothing."""
    name = _nonblocking(words)[0].upper()
    return name in NULL_ARRAYS or (name in (b"LPOP", b"RPOP") and len(words) > 2)


def _with_nulls(reply: bytes) -> bytes:
    """Put nulls for what Lua makes of them in RESP3, in which no command says false."""
    if reply == FALSE:
        return resp.null(3)
    if reply.startswith(b"*") and FALSE in reply:
        return resp.array([resp.null(3) if one == FALSE else one for one in _core.elements(reply)])
    return reply


def can_return(commands: Iterable[Words], protocol: int) -> bool:
    """Whether Lua can tell their replies: in RESP3 it loses what is null inside of an array."""
    return protocol == 2 or not any(
        words[0].lower() in HAVE_NULLS and words[-1] != b">" for words in commands
    )


# Each with what takes one element of the first of some keys that has any.
POPS = {
    b"BLPOP": (b"LMPOP", b"LEFT"),
    b"BRPOP": (b"LMPOP", b"RIGHT"),
    b"BZPOPMIN": (b"ZMPOP", b"MIN"),
    b"BZPOPMAX": (b"ZMPOP", b"MAX"),
}


SECONDS_MOST = 2**63 / 1000  # servers count milliseconds in a signed word
MOVES = {b"BLMOVE": b"LMOVE", b"BRPOPLPUSH": b"RPOPLPUSH"}
COUNTED = frozenset((b"BLMPOP", b"BZMPOP"))


def _nonblocking(words: Words) -> Words:
    """Build a command that does not wait from one that would: scripts may not."""
    name = words[0].upper()
    if _timeout_error(words):
        return [b"PING"]  # it has no other reply
    if name in POPS:
        pop, where = POPS[name]
        keys = words[1:-1]
        return [pop, b"%d" % len(keys), *keys, where]
    if name in COUNTED:
        return [name[1:], *words[2:]]
    if name in MOVES:
        return [MOVES[name], *words[1:-1]]
    if name.lower() in MAPS and (at := stream_read.block_at(words)):
        return [*words[:at], *words[at + 2 :]]
    return words


def _timeout_error(words: Words) -> bytes | None:
    """What servers say to a command that may not wait so long.

    What else is wrong with it Redis 7.0 may say first; of times as long as inf it says that they
    are negative.
    """
    name = words[0].upper()
    if name.lower() in MAPS and (at := stream_read.block_at(words)):
        number: float | None = parse_integer(words[at + 1])
        unit, most = "an integer", math.inf
    elif name in POPS or name in MOVES or name in COUNTED:
        if name == b"BLMOVE" and not ENDS.issuperset(map(bytes.upper, words[3:5])):
            return None  # that comes first
        number = parse_seconds(words[1] if name in COUNTED else words[-1])
        unit, most = "a float", SECONDS_MOST
    else:
        return None
    if number is None:
        return resp.error(f"ERR timeout is not {unit} or out of range")
    if number < 0:
        return resp.error("ERR timeout is negative")
    return resp.error("ERR timeout is out of range") if number >= most else None


def _as_blocking_reply(words: Words, reply: bytes) -> bytes:
    """The reply to the command from which ``_at_once`` has made another."""
    if not reply.startswith(b"*"):
        return reply
    key, taken = _core.elements(reply)
    (element,) = _core.elements(taken)
    is_pair = POPS[words[0].upper()][0] == b"ZMPOP"
    return resp.array([key, *(_core.elements(element) if is_pair else [element])])
