"""Blocks of commands for a server that has no memory left.

At ``maxmemory`` without eviction a server queues little or nothing between MULTI and EXEC, and
refuses what may need memory: RESTORE of a copy, SET of a record. A script with the flag
``allow-oom`` is atomic, too, and may do both. It is used only for commands that one server would
run at that moment: commands that need memory themselves are refused before.
"""

import math
from collections.abc import Iterable, Sequence

from threadis import _core, own_names, resp
from threadis.catalog.blocking import ZSET, Form, of_command
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
    % own_names.SCRIPT_MARK
)
# Commands that reply with nulls inside an array, which Lua loses in RESP3 …
HAVE_NULLS = frozenset(b"zmscore geopos xreadgroup xclaim xautoclaim xinfo xpending object".split())
# … unless Lua asks in RESP2, where the reply is otherwise the same, except for a map, whose order
# Lua loses.
MAPS = frozenset((b"xread", b"xreadgroup"))
TOLD_IN_RESP2 = MAPS.union(b"mget hmget hgetex hgetdel geohash sort sort_ro".split())
NULL_ARRAYS = frozenset((b"LMPOP", b"ZMPOP", b"XREAD", b"XREADGROUP"))
WORDS_MOST = 5000  # of one command: what Lua can unpack at once is a little more


def block(commands: Sequence[Words], protocol: int) -> Words:
    """Build one command that runs all of these; its reply contains theirs."""
    flat: list[bytes] = []
    for words in map(_nonblocking, commands):
        told_in = 2 if words[0].lower() in TOLD_IN_RESP2 else protocol
        flat += [b"%d" % told_in, b"%d" % len(words), *words]
    return [b"EVAL", SCRIPT, b"0", *flat]


async def results(reply: bytes, commands: Sequence[Words], protocol: int) -> list[bytes] | None:
    """Return the replies of these commands; None if the block was refused."""
    if not reply.startswith(b"*"):
        return None
    replies = await long_replies.elements(reply)
    return await offload(len(replies), _restore_nulls, replies, commands, protocol)


def _restore_nulls(told: Sequence[bytes], commands: Sequence[Words], protocol: int) -> list[bytes]:
    """Restore nulls that Lua has changed."""
    replies = [_with_nulls(one) for one in told]
    for at, words in enumerate(commands):
        if wrong := _timeout_error(words):
            replies[at] = wrong
        elif replies[at] == resp.null(2) and _has_null_array(words):
            replies[at] = resp.null_array(2)
        elif (blocking := of_command(words)) and blocking.form is Form.POP:
            replies[at] = _as_blocking_reply(words, replies[at])
        elif protocol == 3 and words[0].lower() in MAPS and replies[at].startswith(b"*"):
            pairs = [b"".join(_core.elements(pair)) for pair in _core.elements(replies[at])]
            replies[at] = b"%%%d\r\n" % len(pairs) + b"".join(pairs)
    return replies


def _has_null_array(words: Words) -> bool:
    """Whether the empty reply is a null array: Lua knows only one kind of null."""
    name = _nonblocking(words)[0].upper()
    return name in NULL_ARRAYS or (name in (b"LPOP", b"RPOP") and len(words) > 2)


def _with_nulls(reply: bytes) -> bytes:
    """Restore nulls that Lua has changed in RESP3, where no command replies false."""
    if reply == FALSE:
        return resp.null(3)
    if reply.startswith(b"*") and FALSE in reply:
        return resp.array([resp.null(3) if one == FALSE else one for one in _core.elements(reply)])
    return reply


def can_return(commands: Iterable[Words], protocol: int) -> bool:
    """Whether Lua can return their replies: in RESP3 it loses nulls inside arrays."""
    return protocol == 2 or not any(
        words[0].lower() in HAVE_NULLS and words[-1] != b">" for words in commands
    )


SECONDS_MOST = 2**63 / 1000  # servers count milliseconds in a signed word


def _nonblocking(words: Words) -> Words:
    """Convert a blocking command to one that does not block: scripts may not."""
    blocking = of_command(words)
    if blocking is None:
        return words
    if _timeout_error(words):
        return [b"PING"]  # its reply is replaced
    match blocking.form:
        case Form.POP:
            (pop, where), keys = blocking.at_once, words[1:-1]
            return [pop, b"%d" % len(keys), *keys, where]
        case Form.COUNTED_POP:
            return [*blocking.at_once, *words[2:]]
        case Form.MOVE:
            return [*blocking.at_once, *words[1:-1]]
        case Form.READ if at := stream_read.block_at(words):
            return [*words[:at], *words[at + 2 :]]
    return words


def _timeout_error(words: Words) -> bytes | None:
    """Return the servers' error for an invalid timeout.

    Redis 7.0 may report another error first; and calls timeouts like inf negative.
    """
    if (blocking := of_command(words)) is None:
        return None
    if blocking.timeout_at is None:
        if not (at := stream_read.block_at(words)):
            return None
        number: float | None = parse_integer(words[at + 1])
        unit, most = "an integer", math.inf
    else:
        if words[0].upper() == b"BLMOVE" and not ENDS.issuperset(map(bytes.upper, words[3:5])):
            return None  # another error comes first
        number = parse_seconds(words[blocking.timeout_at])
        unit, most = "a float", SECONDS_MOST
    if number is None:
        return resp.error(f"ERR timeout is not {unit} or out of range")
    if number < 0:
        return resp.error("ERR timeout is negative")
    return resp.error("ERR timeout is out of range") if number >= most else None


def _as_blocking_reply(words: Words, reply: bytes) -> bytes:
    """Convert the reply of the command that ``_nonblocking`` has built."""
    if not reply.startswith(b"*"):
        return reply
    key, taken = _core.elements(reply)
    (element,) = _core.elements(taken)
    blocking = of_command(words)
    is_pair = blocking is not None and blocking.waits_for == ZSET
    return resp.array([key, *(_core.elements(element) if is_pair else [element])])
