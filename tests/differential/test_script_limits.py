"""Scripts at the limits of Lua, and where they begin and end: the same on every road."""

from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

A, B, C, _ = spread("l", each=1)
INCR: Final = "redis.call('INCR', K) "
TOLD: Final = "redis.call('PUBLISH', 'c', 'm') "
ROADS: Final = {  # what K is, the keys, the arguments
    "declared": ("KEYS[1]", [A], []),
    "built": ("ARGV[1]", [f"{{{A}}}1"], [f"{{{A}}}2"]),
    "built, keys apart": ("ARGV[1]", [f"{{{A}}}1", B, C], [f"{{{A}}}2"]),
    "elsewhere": ("ARGV[1]", [A], [B]),
    "without keys": ("ARGV[1]", [], [B]),
}


def locals_of(count: int) -> str:
    return "".join(f"local v{number} = {number} " for number in range(count))


def upvalues(count: int) -> str:
    names = "+".join(f"v{number}" for number in range(count))
    return f"local function f() return redis.call('INCRBY', K, {names}) end return f()"


LIMITS: Final = {
    **{f"{n} locals": locals_of(n) + INCR + "return v7" for n in range(197, 202)},
    **{f"{n} upvalues": locals_of(n) + upvalues(n) for n in range(57, 62)},
    **{f"{n} blocks": INCR + "do " * n + " end" * n for n in range(195, 202)},
    **{f"{n} parentheses": INCR + f"return {'(' * n}1{')' * n}" for n in range(195, 201)},
}
TEXTS: Final = {
    "dots": INCR + "local a = ... return {tostring(a), select('#', ...)}",
    "a return in the middle": INCR + "do return 7 end " + INCR,
    "a line": INCR + "\n\nlocal x = nil\nx.y = 1",
    "a line of a command": INCR + "\n\nredis.call('LPUSH', K, 1)",
    "a line of a caught error": INCR + "\nlocal _, e = pcall(function() error('z') end) return e",
    "a stack overflow": INCR + "local function f() return 1 + f() end return f()",
    "nothing after return": INCR + "return return",
    "an end of a block": INCR + "end",
    "a byte order mark": "\ufeff" + INCR,
    "no comment of Lua": "#comment\n" + INCR,
    "comments": "--[==[ x\n]==] " + INCR + "return 3 --",
    "begins with a semicolon": "; " + INCR,
    "#!lua": "#!lua\n" + INCR + "\nerror('x')",
    "#!lua and a return": "#!lua\r\n" + INCR,
    "only #!lua": "#!lua",
    "#!js": "#!js\n" + INCR,
    "#!": "#!\n" + INCR,
    "a name": "#!lua name=x\n" + INCR,
    "no flags": "#!lua flags=\n" + INCR,
    "flags": "#!lua flags=allow-oom,no-cluster\n" + INCR,
    "no writes": "#!lua flags=no-writes\n" + INCR,
    "an unknown flag": "#!lua flags=nosuch\n" + INCR,
}


@pytest.mark.parametrize("begin", ["", TOLD], ids=["", "publishes"])
@pytest.mark.parametrize("road", ROADS)
def test_limits_are_those_of_the_script(pair: Pair, road: str, begin: str) -> None:
    key, keys, args = ROADS[road]
    with pair.both() as both:
        for script in (*LIMITS.values(), *TEXTS.values()):
            first, end, rest = (
                script.rpartition("\n") if script.startswith("#!") else ("", "", script)
            )
            body = (first + end + begin + rest).replace("K)", f"{key})").replace("K,", f"{key},")
            for _ in range(2):
                both.same("EVAL", body, len(keys), *keys, *args)
                both.same("MGET", A, B, C, f"{{{A}}}2")
            both.same("DEL", A, B, f"{{{A}}}2")
        both.same("SCRIPT", "FLUSH")
