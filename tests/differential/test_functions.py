"""Functions, where their keys are and on copies, as of one server."""

import itertools
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

A, B, C, _ = spread("n", each=1)
LIBRARY: Final = """#!lua name=several
local function add(key, by)
    return redis.call('INCRBY', key, by or 1)
end
local function put(keys, args)
    redis.call('SET', keys[1], args[1])
    return redis.call('GET', keys[1])
end
redis.register_function('put', put)
redis.register_function('add', function(keys, args) return add(keys[1], args[1]) end)
redis.register_function('stray', function(keys, args) add(keys[1]) return add(args[1]) end)
redis.register_function{function_name='look', flags={'no-writes'},
    callback=function(keys) return redis.call('MGET', unpack(keys)) end}
redis.register_function('fails', function(keys) add(keys[1]) error({err='MINE here'}) end)
redis.register_function('caught', function(keys)
    local ok, e = pcall(function() return redis.call('LPUSH', keys[1], 1) end)
    return {tostring(ok), redis.pcall('GET', keys[1])}
end)
redis.register_function('there', function(keys) redis.call('SELECT', 9) return add(keys[1]) end)
"""
LATEST: Final = """#!lua name=several
local latest
redis.register_function('latest', function(keys)
    local before = latest
    latest = keys[1]
    if before then redis.call('APPEND', before, 'x') end
    return redis.call('INCR', keys[1])
end)
"""
CALLS: Final = ["put", "add", "stray", "look", "fails", "caught"]
USERS: Final = {
    "default": "",
    "all": "~* +@all",
    "some": "~n* +@all -incrby",
    "few": "~n* +fcall +get",
}


@pytest.mark.parametrize("user", USERS)
def test_functions_of_users(pair: Pair, user: str, protocol: int) -> None:
    with pair.both(protocol) as admin, pair.both(protocol) as both:
        admin.same("FUNCTION", "LOAD", LIBRARY)
        if user != "default":
            admin.same("ACL", "SETUSER", user, "on", "nopass", *USERS[user].split())
            both.same("AUTH", user, "")
        for name, keys in itertools.product(CALLS, ([A], [A, B], ["foreign"], [])):
            for argument in (7, B, "foreign"):
                both.same("FCALL", name, len(keys), *keys, argument)
                both.same("FCALL_RO", name, len(keys), *keys, argument)
                both.same("MULTI")
                both.same("FCALL", name, len(keys), *keys, argument)
                both.same("EXEC")
                admin.same("MGET", A, B, "foreign")
            admin.same("DEL", A, B, "foreign")
        admin.same("ACL", "DELUSER", user if user != "default" else "nobody")
        admin.same("FUNCTION", "FLUSH")


def test_a_function_that_keeps_to_its_keys_may_go_to_another_database(both: Both) -> None:
    for key in (A, B, C):
        both.same("FCALL", "there", 1, key)
        both.same("GET", key)
    both.same("SELECT", 9)
    both.same("MGET", A, B, C)


@pytest.fixture
def both(pair: Pair) -> Iterator[Both]:
    with pair.both() as found:
        found.same("FUNCTION", "LOAD", LIBRARY)
        yield found
        found.same("FUNCTION", "FLUSH")


def test_what_a_call_has_left_is_no_key_of_the_next(pair: Pair) -> None:
    """Whatever a library keeps: all of a call happens, or nothing."""
    with pair.both() as both:
        both.same("FUNCTION", "LOAD", LATEST)
        for _ in range(3):
            for key in (A, B, C):
                assert not both.ours.ask("FCALL", "latest", 1, key).raw.startswith(b"-ERR threadis")
        both.same("FUNCTION", "FLUSH")


def test_a_function_that_becomes_another_one_meanwhile(pair: Pair) -> None:
    """Each call is one of the old function or of the new one."""
    library = "#!lua name=turns\nredis.register_function('f', function(keys, args) {} end)"
    bodies = [
        "return redis.call('INCR', keys[1])",
        "redis.call('INCR', keys[1]) redis.call('INCR', args[1]) return 'two'",
    ]
    stop = threading.Event()

    def turn() -> None:
        with pair.both() as other:
            for body in itertools.cycle(bodies):
                if stop.is_set():
                    return
                other.ours.ask("FUNCTION", "LOAD", "REPLACE", library.format(body))

    with pair.both() as both:
        both.ours.ask("FUNCTION", "LOAD", "REPLACE", library.format(bodies[0]))
        thread = threading.Thread(target=turn)
        thread.start()
        try:
            replies = [both.ours.ask("FCALL", "f", 1, A, B).raw for _ in range(300)]
        finally:
            stop.set()
            thread.join()
        assert not [reply for reply in replies if reply.startswith(b"-")]
        two = sum(reply == b"$3\r\ntwo\r\n" for reply in replies)
        counts = [both.ours.ask("GET", key).text for key in (A, B)]
        assert counts == [b"300", b"%d" % two if two else b""]
        both.ours.ask("DEL", A, B)
        both.ours.ask("FUNCTION", "FLUSH")
