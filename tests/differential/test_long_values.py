"""Values of megabytes on several instances: answered as by one server."""

import itertools
import os

import pytest

from differential.conftest import INSTANCES
from differential.pair import Both, Pair
from differential.wire import Reply, Word
from raw import keys_of
from threadis.coordinator.base.offload import PIECE

MORE_A, MORE_B = (list(itertools.islice(keys_of(index, INSTANCES), 5)) for index in (0, 1))
LONG = os.urandom(PIECE) * 2 + b"the end"
OTHER = LONG[::-1]


def ask(both: Both, *words: Word) -> Reply:
    """Ask both; how they differ without all that they say."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    bare, ours = both.bare.ask_all([parts])[0], both.ours.ask_all([parts])[0]
    assert bare.raw == ours.raw, (parts[0], bare.raw[:80], len(bare.raw), ours.raw[:80])
    return ours


@pytest.mark.parametrize("protocol", [2, 3])
def test_they_are_what_one_server_makes_of_them(pair: Pair, protocol: int) -> None:
    pair.flush()
    (a, a2, a3, *_), (b, b2, b3, *_) = MORE_A, MORE_B
    with pair.both(protocol) as both:
        ask(both, "MSET", a, LONG, b, OTHER)
        ask(both, "MGET", a, b, a)
        ask(both, "MULTI")
        for key, value in ((a2, LONG), (b2, OTHER), (a3, b"short")):
            ask(both, "SET", key, value)
        ask(both, "APPEND", b2, LONG)
        ask(both, "EXEC")
        ask(both, "MULTI")
        for key in (a, b, a2, b2, a3):
            ask(both, "GET", key)
        ask(both, "EXEC")
        ask(both, "COPY", a, b3)
        ask(both, "RENAME", b3, a3)
        ask(both, "BITOP", "XOR", b3, a, b)
        ask(both, "MSETNX", "new:1", LONG, "new:2", OTHER, "new:3", LONG)
        ask(both, "MGET", a3, b3, "new:1", "new:2", "new:3")
        ask(both, "EVAL", "redis.call('SET', KEYS[2], redis.call('GET', KEYS[1]))", 2, a, b3)
        ask(both, "EVAL", "return {redis.call('GET', KEYS[1]), KEYS[2], ARGV[1]}", 2, b, a, LONG)
        ask(both, "EVAL", "return redis.call('GET', ARGV[1]) .. KEYS[1]", 1, a, b)
        ask(both, "EVAL", "redis.call('GET', KEYS[2]) return {err = ARGV[1]}", 2, a, b, "no\r\nno")
        ask(both, "MGET", a, b, a2, b2, a3, b3)


def test_elements_are_what_one_server_makes_of_them(pair: Pair) -> None:
    pair.flush()
    (a, a2, *_), (b, b2, *_) = MORE_A, MORE_B
    with pair.both() as both:
        ask(both, "RPUSH", a, "first", LONG)
        ask(both, "LMOVE", a, b, "RIGHT", "LEFT")
        ask(both, "LRANGE", b, 0, -1)
        ask(both, "SADD", a2, LONG)
        ask(both, "SMOVE", a2, b2, LONG)
        ask(both, "SADD", a2, OTHER)
        ask(both, "SUNIONSTORE", b, a2, b2)
        ask(both, "SMISMEMBER", b, LONG, OTHER, "x")
        ask(both, "SDIFF", b, a2)
        ask(both, "SINTER", a2, b)


def test_long_keys_that_begin_alike_are_different_keys(pair: Pair) -> None:
    keys = [b"k" * 5000 + b"%d" % number for number in range(8)]
    pair.flush()
    with pair.both() as both:
        for number, key in enumerate(keys):
            ask(both, "SADD", key, number, "all")
        ask(both, "SINTERSTORE", keys[0] + b"x", *keys)
        ask(both, "RENAME", keys[0], keys[1])
        ask(both, "EVAL", "return redis.call('SCARD', KEYS[2])", 2, keys[1], keys[2])
        ask(both, "EXISTS", *keys, keys[0] + b"x")
        ask(both, "UNLINK", *keys)
