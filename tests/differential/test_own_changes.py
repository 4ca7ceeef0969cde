"""Who reads what it has changed itself is told when that changes again."""

import itertools
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_tracking import KEYS, invalid

pytestmark = pytest.mark.sample

KEY, OTHER, MARK = KEYS[:3]  # on different instances
WRITES: Final = "redis.call('SET', KEYS[1], 1) "
SCRIPT: Final = WRITES + "return redis.call('GET', KEYS[1])"
READS: Final = "return redis.call('GET', KEYS[1])"
LIBRARY: Final = f"#!lua name=q\nredis.register_function('own', function(KEYS, ARGV) {SCRIPT} end)"

Words = tuple[str | int, ...]
# What a client does who is told nothing of it; and whether the next change concerns it.
CASES: Final[dict[str, tuple[list[Words], bool]]] = {
    "script": ([("EVAL", SCRIPT, 1, KEY)], True),
    "script that reads first": ([("EVAL", f"redis.call('GET', KEYS[1]) {SCRIPT}", 1, KEY)], True),
    "script that writes last": (
        [("EVAL", "redis.call('GET', KEYS[1]) " + WRITES, 1, KEY)],
        False,
    ),
    "script of two keys": (
        [("EVAL", f"redis.call('SET', KEYS[2], 1) {SCRIPT}", 2, KEY, OTHER)],
        True,
    ),
    "function": ([("FCALL", "own", 1, KEY)], True),
    "write, read": ([("MULTI",), ("SET", KEY, 1), ("GET", KEY), ("EXEC",)], True),
    "read, write": ([("MULTI",), ("GET", KEY), ("SET", KEY, 1), ("EXEC",)], False),
    "on two instances": (
        [("MULTI",), ("SET", KEY, 1), ("GET", KEY), ("SET", OTHER, 1), ("EXEC",)],
        True,
    ),
    "script in a transaction": (
        [("MULTI",), ("EVAL", SCRIPT, 1, KEY), ("SET", OTHER, 1), ("EXEC",)],
        True,
    ),
    "write, script reads": (
        [("MULTI",), ("SET", KEY, 1), ("EVAL", READS, 1, KEY), ("EXEC",)],
        True,
    ),
    "MSET, MGET": (
        [("MULTI",), ("MSET", KEY, 1, OTHER, 1), ("MGET", KEY, OTHER), ("EXEC",)],
        True,
    ),
    "while it watches": (
        [("WATCH", OTHER), ("MULTI",), ("SET", KEY, 1), ("GET", KEY), ("EXEC",)],
        True,
    ),
    "in order": (
        [("MULTI",), ("SET", KEY, 1), ("WAIT", 0, 0), ("GET", KEY), ("EXEC",)],
        True,
    ),
    "read long before": ([("GET", KEY), ("SET", KEY, 1)], False),
}


@pytest.mark.parametrize("options", [(), ("OPTOUT",)])
@pytest.mark.parametrize("case", CASES)
def test_who_does_not_want_to_hear_of_itself(
    pair: Pair, case: str, options: tuple[str, ...]
) -> None:
    commands, is_told = CASES[case]
    with pair.both(3) as reader, pair.both() as writer:
        writer.same("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        reader.same("CLIENT", "TRACKING", "ON", "NOLOOP", *options)
        for words in commands:
            reader.same(*words)
        change(reader, writer, [KEY] if is_told else [])


@pytest.mark.parametrize("is_queued", [False, True], ids=["alone", "queued"])
@pytest.mark.parametrize("options", [(), ("OPTOUT",), ("OPTIN",)])
@pytest.mark.parametrize("also", ["", "redis.call('SET', 'also', 1) "], ids=["reads", "writes"])
def test_a_script_that_leaves_a_key_as_it_is(
    pair: Pair, also: str, options: tuple[str, ...], is_queued: bool
) -> None:
    """It is declared, and may be copied for the script, to any instance, but it is not written."""
    text = f"{also}return redis.call('GET', ARGV[1])"
    with pair.both(3) as reader, pair.both() as writer:
        for key in KEYS:
            writer.same("SET", key, 0)
        for key in KEYS:  # later runs begin with copies of what the earlier ones have touched
            writer.same("EVAL", text, 1, KEY, key)
        reader.same("CLIENT", "TRACKING", "ON", "NOLOOP", *options)
        for declared, undeclared in itertools.permutations(KEYS[:5], 2):
            if options == ("OPTIN",):
                reader.same("CLIENT", "CACHING", "YES")
            reader.same("GET", declared)
            if is_queued:
                reader.same("MULTI")
                reader.same("SET", "another", 2)
            reader.same("EVAL", text, 1, declared, undeclared)
            if is_queued:
                reader.same("EXEC")
            writer.same("SET", declared, 2)
            push = reader.bare.read().raw
            assert declared.encode() in push
            while reader.ours.read().raw != push:
                pass  # it may be told of copies, too


def test_a_script_that_changes_what_it_has_read(pair: Pair) -> None:
    """Keys that it does not name are known only when it is over."""
    text = f"local was = redis.call('GET', '{KEY}') redis.call('INCR', '{KEY}') return was"
    is_told = pair.server.kind == "valkey"  # Redis 7.0 remembers what scripts declare
    with pair.both(3) as reader:
        reader.same("CLIENT", "TRACKING", "ON")
        for words in [("EVAL", text, 0), ("EVAL", text, 1, OTHER)]:
            reader.same(*words)
            if is_told:
                invalid(reader, KEY)
            reader.same("MULTI")
            reader.same(*words)
            reader.same("EXEC")
            if is_told:
                invalid(reader, KEY)


def change(reader: Both, writer: Both, told: list[str]) -> None:
    """Another client changes what may have been read: only of these keys is told."""
    writer.same("SET", KEY, 2)
    invalid(reader, *told)
    reader.same("GET", MARK)
    writer.same("INCR", MARK)
    invalid(reader, MARK)
