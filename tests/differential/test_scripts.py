"""EVAL, EVALSHA, SCRIPT, FCALL, FUNCTION: keys on one instance, on several, and undeclared."""

import hashlib
from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

KEYS: Final = spread("s", each=1)
A, B, C, D = KEYS
Line = tuple[str | int, ...]

LIBRARY = """#!lua name=lib
redis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)
redis.register_function{function_name='look', flags={'no-writes'},
    callback=function(keys, args) return redis.call('MGET', unpack(keys)) end}
"""

STRAYING = "redis.call('INCR', KEYS[1]) return redis.call('INCR', ARGV[1])"
STRAYING_SHA1 = hashlib.sha1(STRAYING.encode(), usedforsecurity=False).hexdigest()

LIST = "local found = redis.call('KEYS', ARGV[1]) table.sort(found) return found"
CLEAN = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end return 1"
IF_ANY = "if ARGV[1] == '' then return redis.call('GET', KEYS[1]) end return redis.call('DBSIZE')"

PROGRAMS: Final[dict[str, list[Line]]] = {
    "values": [
        ("EVAL", "return 1", 0),
        ("EVAL", "return {1, 2, {3, 'x'}, false, true}", 0),
        ("EVAL", "return {KEYS[1], ARGV[1]}", 1, A, "x"),
        ("EVAL", "return redis.status_reply('FINE')", 0),
        ("EVAL", "return redis.error_reply('OOM made here')", 0),
        ("EVAL", "return 3.99", 0),
        ("EVAL", "redis.setresp(3); return {double=3.5}", 0),
        ("EVAL", "nonsense here", 0),
        ("EVAL", "return 1", 2, A),
        ("EVAL", "return 1", "x"),
        ("EVAL", "return 1", -1),
        ("EVAL", "return 1"),
    ],
    "one instance": [
        ("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", 1, A, "v"),
        ("EVAL", "return redis.call('GET', KEYS[1])", 1, A),
        ("EVAL", "return redis.call('GET', KEYS[1])", 1, A),
        ("EVAL", "return redis.call('INCR', KEYS[1])", 1, A),
        ("EVAL", "return redis.pcall('INCR', KEYS[1])", 1, A),
        ("EVAL_RO", "return redis.call('GET', KEYS[1])", 1, A),
        ("EVAL_RO", "return redis.call('SET', KEYS[1], 1)", 1, A),
        ("EVAL", "redis.call('SELECT', 3); return redis.call('SET', KEYS[1], 1)", 1, A),
        ("GET", A),
        ("SELECT", 3),
        ("GET", A),
    ],
    "several instances": [
        ("MSET", A, 1, B, 2, C, 3),
        ("EVAL", "return redis.call('MGET', unpack(KEYS))", 4, *KEYS),
        ("EVAL", "redis.call('SET', KEYS[1], 'a') return redis.call('DEL', KEYS[2])", 2, A, B),
        ("MGET", *KEYS),
        ("EVAL", "redis.call('RENAME', KEYS[1], KEYS[2])", 2, A, D),
        ("MGET", *KEYS),
        ("EVAL", "redis.call('SET', KEYS[1], 'x'); error('stop')", 2, A, B),
        ("EVAL", "redis.call('SET', KEYS[1], 5, 'EX', 100) return redis.call('TTL', KEYS[1])",
         2, A, B),
        ("TTL", A),
    ],
    "undeclared": [
        ("EVAL", f"redis.call('SET', '{A}', 1) return redis.call('GET', '{A}')", 0),
        ("EVAL", f"redis.call('SET', '{A}', 1) redis.call('SET', '{B}', 2)"
         f" return redis.call('MGET', '{A}', '{B}', '{C}')", 0),
        ("MGET", *KEYS),
        ("EVAL", f"redis.call('INCR', KEYS[1]) return redis.call('INCR', '{B}')", 1, A),
        ("EVAL", f"redis.call('INCR', KEYS[1]) return redis.call('INCR', '{B}')", 1, A),
        ("EVAL", f"redis.pcall('INCR', '{C}') return redis.pcall('LPUSH', '{C}', 1)", 0),
        ("EVAL", "for i = 1, 20 do redis.call('SET', 'many:' .. i, i) end return 'done'", 0),
        ("MGET", "many:1", "many:7", "many:20", *KEYS),
        ("DBSIZE",),
    ],
    "strange names": [
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "with space"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "star*[a-z]?\\"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "nul\0nul"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "tab\tline\n"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, ""),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "é"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", 2, "{t}^a", "{t}-b"),
        ("EVAL", "return redis.call('SET', '{t}c', 1)", 2, "{t}^a", "{t}-b"),
        ("DBSIZE",),
    ],
    "SHA1": [
        ("SCRIPT", "LOAD", "return redis.call('INCRBY', KEYS[1], 7)"),
        ("EVALSHA", "3a5cbeed6ea9ff5ef0ba2be0a0a0fbc2b6f6f7dd", 1, A),
        ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0),
        ("EVAL", "return 'cached'", 0),
        ("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "x"),
        ("SCRIPT", "FLUSH"),
        ("SCRIPT", "FLUSH", "NEVER"),
        ("SCRIPT", "KILL"),
    ],
    "SHA1 before the script": [  # what NOSCRIPT says is no run from which anything can be learnt
        ("EVALSHA", STRAYING_SHA1, 1, A, B),
        ("EVAL", STRAYING, 1, A, B),
        ("EVALSHA", STRAYING_SHA1, 1, A, A),
        ("EVALSHA", STRAYING_SHA1, 1, A, B),
        ("MGET", *KEYS),
    ],
    "functions": [
        ("FUNCTION", "FLUSH"),
        ("FUNCTION", "LOAD", LIBRARY),
        ("FUNCTION", "LOAD", LIBRARY),
        ("FUNCTION", "LOAD", "REPLACE", LIBRARY),
        ("FUNCTION", "LOAD", "nonsense"),
        ("FCALL", "put", 1, A, "x"),
        ("FCALL", "put", 1, B, "y"),
        ("FCALL_RO", "look", 3, A, B, C),
        ("FCALL_RO", "put", 1, A, "z"),
        ("FCALL", "nosuch", 1, A),
        ("FUNCTION", "DELETE", "lib"),
        ("FUNCTION", "DELETE", "lib"),
        ("FUNCTION", "KILL"),
        ("FUNCTION", "STATS"),
        ("FCALL", "put", 1, A, "x"),
        ("MGET", *KEYS),
    ],
    "listing": [
        ("EVAL", "return {redis.call('RANDOMKEY'), redis.call('KEYS', '*')}", 0),
        ("EVAL", "redis.call('SET', KEYS[1], 1) return redis.call('DBSIZE')", 1, A),
        ("EVAL", "return redis.call('RANDOMKEY')", 1, B),
        ("MSET", A, 1, B, 2, C, 3, "other", 4),
        ("EVAL", LIST, 0, "*"),
        ("EVAL", LIST, 0, "*"),
        ("EVAL_RO", LIST, 1, A, "s*"),
        ("EVAL", LIST, 3, A, B, "new", "*"),
        ("EVAL", CLEAN, 0, "s*"),
        ("EVAL", LIST, 0, "*"),
        ("EVAL", "redis.call('RENAME', 'other', 'x') " + LIST, 0, "*"),
        ("EVAL", IF_ANY, 1, A, ""),
        ("EVAL", IF_ANY, 1, A, ""),
        ("SET", A, "v", "EX", 1000),
        ("EVALSHA", hashlib.sha1(CLEAN.encode(), usedforsecurity=False).hexdigest(), 0, "[^s]*"),
        ("TTL", A),
        ("EVAL", "redis.call('SET', KEYS[1], 1) redis.call('FLUSHDB') " + LIST, 1, B, "*"),
        ("DBSIZE",),
        ("MULTI",),
        ("SET", A, 1),
        ("EVAL", LIST, 0, "*"),
        ("EXEC",),
    ],
    "in transactions": [
        ("MULTI",),
        ("SET", A, 1),
        ("EVAL", "return redis.call('INCR', KEYS[1])", 1, A),
        ("EVAL", f"return redis.call('MGET', '{A}', '{B}')", 0),
        ("EXEC",),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_program(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        for words in PROGRAMS[name]:
            both.same(*words)
        both.same("SCRIPT", "FLUSH")
        both.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("protocol", [2, 3])
def test_scripts_at_maxmemory(pair: Pair, protocol: int) -> None:
    """There is no memory for copies then; what the server would allow runs all the same."""
    with pair.both(protocol) as both:
        both.same("SET", A, "v")
        both.same("CONFIG", "SET", "maxmemory", "1")
        try:
            both.same("EVAL", "return redis.call('GET', KEYS[1])", 1, A)
            both.same("EVAL", "return redis.call('GET', ARGV[1])", 0, A)
            both.same("EVAL", "return redis.call('DEL', KEYS[1])", 1, A)
            both.same("EVAL", "return redis.call('EXISTS', ARGV[1])", 0, A)
            both.same("EVAL", "#!lua flags=no-writes\nreturn 'here'", 0)
            both.same("EVAL", "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 1)", 1, A)
            refused = ("EVAL", "return redis.call('SET', ARGV[1], 2)", 0, A)
            for side in (both.ours, both.bare):
                assert side.ask(*refused).raw.startswith(b"-OOM ")
        finally:
            both.same("CONFIG", "SET", "maxmemory", "0")
        both.same("GET", A)
        both.same("DEL", A)


def test_a_new_function_of_an_old_name_is_another(pair: Pair) -> None:
    """What the old one has shown says nothing about the new one."""
    one = "#!lua name=one\nredis.register_function('f', function(keys) return 1 end)"
    two = "#!lua name=one\nredis.register_function('f', function(keys, args) %s end)"
    stray = "redis.call('INCR', keys[1]) return redis.call('INCR', args[1])"
    with pair.both() as both:
        both.same("FUNCTION", "LOAD", one)
        both.same("FCALL", "f", 1, A, B)
        both.same("FUNCTION", "LOAD", "REPLACE", two % stray)
        both.same("FCALL", "f", 1, A, B)
        both.same("MGET", A, B)
        both.same("FUNCTION", "FLUSH")
        both.same("DEL", A, B)


def test_what_a_script_may_not_list(pair: Pair) -> None:
    with pair.both() as both:
        refused = both.ours.ask("EVAL", "return redis.call('SCAN', 0)", 0)
        assert b"SCAN inside a script would see one instance only" in refused.raw
        both.same("EVAL", IF_ANY, 1, A, "")
        both.same("EVAL", IF_ANY, 1, A, "")
        both.same("EVAL", IF_ANY, 1, A, "x")
        both.same("MSET", *(word for n in range(10_001) for word in (f"many:{n}", n)))
        refused = both.ours.ask("EVAL", "return redis.call('DBSIZE')", 0)
        assert b"works on copies of them, 10000 at most" in refused.raw
        both.same("FLUSHALL")


def test_as_many_scripts_are_kept_as_on_one_server(pair: Pair) -> None:
    scripts = [f"return {number}" for number in range(700)]
    with pair.both() as both:
        both.same("SCRIPT", "FLUSH")
        both.same("SCRIPT", "LOAD", "return 'loaded'")
        for script in scripts:
            both.same("EVAL", script, 0)
        info = [side.ask("INFO", "memory").text.decode() for side in (both.bare, both.ours)]
        counts = [text.partition("number_of_cached_scripts:")[2].split()[0] for text in info]
        assert counts[0] == counts[1]
        for script in ["return 'loaded'", *scripts[-490:]]:
            name = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            both.same("EVALSHA", name, 0)
