"""What a function of a library is proved to touch, and what may be left from another call."""

from typing import Final

import pytest

from test_reading import ROWS
from threadis.coordinator.lua.analysis import Reach, script_reach
from threadis.coordinator.lua.functions import as_script

G: Final = "local function g(keys, args) return redis.call('set', keys[1], args[1]) end "
CALLED: Final = "redis.register_function('f', function(k) {} end)"
PROVED: Final = [
    "redis.register_function('f', function(keys, args) return redis.call('get', keys[1]) end)",
    "server.register_function('F', function(KEYS, ARGV) return server.call('get', KEYS[1]) end)",
    G + "redis.register_function('f', g)",
    G + "redis.register_function{function_name='f', callback=g, flags={'allow-oom'}}",
    G + "local function b(k, a) return redis.call('get', a[1]) end "
    "redis.register_function('b', b) redis.register_function('f', g)",
    "local function h(k) return redis.call('incr', k) end "
    "redis.register_function('f', function(keys) return h(keys[2]) end) "
    "redis.register_function('b', function(keys, args) return h(args[2]) end)",
    CALLED.format("for _, one in ipairs(k) do redis.call('del', one) end"),
    CALLED.format("return pcall(function() return redis.call('get', k[1]) end)"),
    CALLED.format("local function g() return redis.call('get', k[1]) end return g()"),
    "local count = {} " + CALLED.format("count[1] = k[1] return redis.call('get', k[1])"),
]
UNPROVED: Final = [
    CALLED.format("return redis.call('get', 'x')"),
    CALLED.format("k = {'x'} return redis.call('get', k[1])"),
    CALLED.format("k[1] = 'x' return redis.call('get', k[1])"),
    "redis.register_function('f', function(k, a) return redis.call('get', a[1]) end)",
    "redis.register_function('f', function(...) local k = ... return redis.call('get', k[1]) end)",
    "redis.register_function('other', function(k) return redis.call('get', k[1]) end)",
    "for i = 1, 2 do redis.register_function('f' .. i, print) end "
    + CALLED.format("return redis.call('get', k[1])"),
    "local r = redis " + CALLED.format("return redis.call('get', k[1])"),
    # What a call before this one has left
    "local last " + CALLED.format("if last then redis.call('get', last) end last = k[1]"),
    "local t = {} " + CALLED.format("t.x = t.x or k[1] return redis.call('get', t.x)"),
    "local t = {} "
    + CALLED.format("t.f = t.f or function() return redis.call('get', k[1]) end t.f()"),
    "local t = {} local function keep(x) t[1] = function() redis.call('get', x) end end "
    + CALLED.format("keep(k[1]) t[1]()"),
    "local t = {} " + CALLED.format("t.k = t.k or k return redis.call('get', t.k[1])"),
    "local pcall = function(g) end "
    + CALLED.format("return pcall(function() return redis.call('get', k[1]) end)"),
    # What is also called in another way
    "local function g(k) return redis.call('get', k[1]) end redis.register_function('f', g) "
    "redis.register_function('h', function() return g({'x'}) end)",
    "local g = 1 function g(k) return redis.call('get', k[1]) end redis.register_function('f', g)",
]


@pytest.mark.parametrize("library", PROVED)
def test_functions_that_keep_to_their_keys(library: str) -> None:
    assert found(library) is Reach.DECLARED
    assert found(library.replace("keys[1]", "keys[1] .. ':x'")) is not Reach.ANYTHING


@pytest.mark.parametrize("library", UNPROVED)
def test_functions_that_might_not(library: str) -> None:
    assert found(library) is Reach.ANYTHING


def found(library: str) -> Reach:
    script = as_script(f"#!lua name=l\n{library}".encode(), b"f")
    return script_reach(script, lambda words: ROWS.get(words[0].lower().decode()), 16)
