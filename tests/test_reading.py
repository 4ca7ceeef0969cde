"""What a script is proved to touch by reading it."""

from collections.abc import Sequence
from typing import Final

import pytest

from threadis.catalog.commands import KeySpec, Row
from threadis.coordinator.lua.analysis import Reach, names_commands, script_reach

ALL, ONE = KeySpec(1, last=-1), KeySpec(1)
ROWS: Final = {
    row.name: row
    for row in [
        *(Row(name, -2, "keys", keys=(ONE,)) for name in ("get", "set", "incr", "expire")),
        Row("del", -2, "split", keys=(ALL,)),
        Row("mset", -3, "split", keys=(KeySpec(1, last=-1, step=2),)),
        Row("zunionstore", -4, "keys", keys=(ONE, KeySpec(2, is_count=True, first=1))),
        Row("sort", -2, "keys", keys=(ONE,), special_words=("BY",)),
        Row("select", 2, "session"),
        Row("keys", 2, "all"),
        Row("copy", -3, "keys", keys=(ONE, KeySpec(2))),
    ]
}

DECLARED: Final = [
    "return 1",
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0",
    "local c, k = redis.call, KEYS[1] for i, x in ipairs(KEYS) do c('set', x, i) end c('get', k)",
    "local c = redis.call('incr', KEYS[1]) if tonumber(c) == 1 then redis.call('expire', KEYS[1],"
    " ARGV[1]) end local t = {} t.x = c t[#t + 1] = {a = 1, [KEYS[1]] = 2} return cjson.encode(t)",
    "local function f(k, v) return redis.call('set', k, v) end f(KEYS[1], 1) f(KEYS[2], ARGV[1])",
    "redis.call('del', unpack(KEYS)) return redis.call('mset', KEYS[1], 1, KEYS[2], 2)",
    "return redis.call('set', KEYS[1], unpack(ARGV))",
    "redis.call('SELECT', 3); return redis.call('SET', KEYS[1], 1)",
    "return redis.call('zunionstore', KEYS[1], 2, KEYS[2], KEYS[3])",
    "local k local n = tonumber(ARGV[1]) if n > 1 then k = KEYS[1] else k = KEYS[2] end"
    " local x = n > 2 and KEYS[1] or k redis.call('get', x) return server.pcall('incr', k)",
    "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])",
    "for i = 1, #KEYS do local k = KEYS[i] redis.call('del', k) end",
    "redis.call('copy', KEYS[1], KEYS[2])",
]
PREFIXED: Final = [
    "local k = KEYS[1] .. ':' .. ARGV[1] return redis.call('get', k)",
    "local k = KEYS[1] for i = 1, 3 do k = k .. i end return redis.call('get', k)",
]
ANYTHING: Final = [
    "redis.call('incr', KEYS[1]) if ARGV[1] ~= '' then redis.call('incr', ARGV[1]) end",
    "local k = ARGV[1] .. KEYS[1] return redis.call('get', k)",
    "KEYS[1] = 'x' return redis.call('get', KEYS[1])",
    "table.insert(KEYS, 1, 'x') return redis.call('get', KEYS[1])",
    "local a, b = ipairs(KEYS) b[1] = 'x' return redis.call('get', KEYS[1])",
    "local t = KEYS t[1] = 'x' return redis.call('get', KEYS[1])",
    "for _, k in function() return 'x', 'y' end, KEYS[1] do redis.call('get', k) break end",
    "local function f(k) k = ... return redis.call('get', k) end f(KEYS[1])",
    "local function f(k) return redis.call('get', k) end f(KEYS[1]) return f(ARGV[2])",
    "local function f(k) return redis.call('get', k) end return pcall(f, 'x')",
    "return pcall(redis.call, 'get', 'x')",
    "local r = redis return r.call('get', 'x')",
    "return _G.redis.call('get', 'x')",
    "return _G['redis']['call']('get', 'x')",
    "return loadstring(\"return redis.call('get','x')\")()",
    r"return redis.call('\103et', 'x')",
    "return redis.call([[get]], 'x')",
    "return redis.call('mset', unpack(ARGV))",
    "return redis.call('set', unpack(ARGV))",
    "return redis.call('del', KEYS[1], unpack(ARGV))",
    "return redis.call('zunionstore', KEYS[1], 2, KEYS[2], 'x')",
    "return redis.call('zunionstore', KEYS[1], ARGV[1], KEYS[2], KEYS[3])",
    "return redis.call('keys', '*')",
    "return redis.call('nosuch', KEYS[1])",
    "return redis.call('sort', KEYS[1], 'by', ARGV[1])",
    "return redis.call('copy', KEYS[1], KEYS[2], 'db', 20)",
    "redis.call('select', 16) return redis.call('get', KEYS[1])",
    "redis.call('select', ARGV[1]) return redis.call('get', KEYS[1])",
    "return redis.call(ARGV[1], KEYS[1])",
    "#!lua flags=no-writes\nreturn redis.call('get', 'x')",
    "local KEYS = ARGV return redis.call('get', KEYS[1])",
    "local k = KEYS[1] local f = function() k = ARGV[1] end f() return redis.call('get', k)",
    "redis.call = 1",
    "string.format = 1",
    "x = 1",
    "function f() return 1 end",
    "local m = getmetatable('') return 1",
    "return redis.acl_check_cmd('get', 'x')",
    "goto x ::x:: return 1",
    "return (" * 5000 + "1" + ")" * 5000,
    "nonsense here",
]


def find(words: Sequence[bytes]) -> Row | None:
    return ROWS.get(words[0].decode().lower())


@pytest.mark.parametrize("script", DECLARED)
def test_what_it_declares(script: str) -> None:
    assert script_reach(script.encode(), find, 16) is Reach.DECLARED


@pytest.mark.parametrize("script", PREFIXED)
def test_what_begins_with_a_key(script: str) -> None:
    assert script_reach(script.encode(), find, 16) is Reach.PREFIXED


@pytest.mark.parametrize("script", ANYTHING, ids=range(len(ANYTHING)))
def test_what_cannot_be_followed(script: str) -> None:
    assert script_reach(script.encode(), find, 16) is Reach.ANYTHING


def test_whether_commands_stand_in_the_text() -> None:
    for script in (b"redis.call('get', x)", b'server.pcall( "SET", x)', b"return 1"):
        assert names_commands(script), script
    for script in (
        b"",
        b"redis.call(ARGV[1])",
        b"local c = redis.call c('get')",
        b"redis['call']('get')",
        b"loadstring(x)()",
        b"redis.call('\\103et')",
        b"redis.call('ge' .. x)",
    ):
        assert not names_commands(script), script
