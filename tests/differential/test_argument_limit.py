"""``proto-max-bulk-len``: on a longer argument an instance hangs up on all who share its lane."""

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import pytest

from differential.conftest import INSTANCES
from differential.pair import Pair
from differential.test_blocking import named
from differential.wire import Connection, pack
from raw import keys_of

MB: Final = 1024 * 1024
LINES: Final = (
    "SET A", "RPUSH A", "GET", "ECHO", "PUBLISH A", "MSET A 1 B 2 C", "EVAL return 1",
    "HSET A field", "NOSUCH",
)  # fmt: skip


def broken_lanes(side: Connection) -> int:
    return int(side.ask("INFO", "threadis").text.split(b"threadis_lanes_broken:")[1].split()[0])


@pytest.fixture
def limited(pair: Pair) -> Iterator[None]:
    """Arguments of at most 1 MB; no lane is lost."""
    with pair.both() as main:
        main.same("CONFIG", "SET", "proto-max-bulk-len", "1mb")
        before = broken_lanes(main.ours)
        yield
        main.same("CONFIG", "SET", "proto-max-bulk-len", "512mb")
        assert broken_lanes(main.ours) == before


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("line", LINES)
def test_longer_arguments_are_refused_at_their_header(pair: Pair, line: str) -> None:
    for before in (b"", pack("MULTI")):
        with pair.both() as both:
            words = named(line)
            for side in (both.bare, both.ours):
                command = pack(*words, b"").removesuffix(b"$0\r\n\r\n")
                side.send(pack("PING") + before + command + b"$%d\r\n" % (MB + 1))
            assert both.ours.read_to_end() == both.bare.read_to_end()


@pytest.mark.usefixtures("limited")
def test_arguments_up_to_the_limit_are_taken(pair: Pair) -> None:
    longest = b"x" * MB
    with pair.both() as both:
        for words in (["SET", "a"], ["RPUSH", "b"], ["HSET", "c", "d"], ["GETSET", "a"]):
            both.same(*words, longest)
        both.same("APPEND", "a", "x")
        both.same("CONFIG", "SET", "proto-max-bulk-len", "2mb")
        both.same("SET", "a", longest * 2)
        both.same("CONFIG", "SET", "proto-max-bulk-len", "1")
        both.same("CONFIG", "SET", "proto-max-bulk-len", "x")
        both.same("SET", "a", longest * 2)


@pytest.mark.usefixtures("limited")
def test_what_is_made_of_shorter_arguments_is_refused_before_anything_happens(pair: Pair) -> None:
    """Records and copies are single arguments, too."""
    names = [b"key:%d" % number for number in range(12)]
    value = os.urandom(MB - 100)
    with contextlib.closing(pair.ours()) as ours:
        writes = [pack("SET", name, value) for name in names]
        pairs = [word for name in names for word in (name, value)]
        ours.send(pack("MSET", *pairs) + pack("MULTI") + b"".join(writes) + pack("EXEC"))
        assert b"needs" in ours.read().text
        for _ in range(1 + len(writes)):
            assert ours.read().kind == "+"
        assert b"proto-max-bulk-len is 1048576" in ours.read().text
        assert ours.ask("EXISTS", *names).number == 0
        source, target = next(keys_of(0, INSTANCES)), next(keys_of(1, INSTANCES))
        for number in range(3):
            assert ours.ask("RPUSH", source, value).number == number + 1
        assert ours.ask("RENAME", source, target).is_error
        script = "return redis.call('LLEN', KEYS[1]) + redis.call('RPUSH', ARGV[1], 'x')"
        refused = ours.ask("EVAL", script, 2, source, target, target)
        assert b"proto-max-bulk-len is 1048576" in refused.text
        assert ours.ask("EXISTS", target).number == 0
        assert ours.ask("LLEN", source).number == 3
        assert ours.ask("SET", target, 1).kind == "+"  # nothing is locked
