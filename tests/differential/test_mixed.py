"""Each command as part of a transaction that cannot be left to one instance."""

import itertools
import os
import shlex
from functools import partial
from typing import Final

import pytest

from differential.pair import Both, Pair, marked
from differential.test_keyspace import spread
from differential.test_scenarios import SCENARIOS, lines
from differential.test_tracking import invalid
from differential.wire import Connection
from waiting import until

ELSEWHERE: Final = spread("elsewhere", each=1)
FIRST, SECOND, *_ = ELSEWHERE
# Done on copies; over several instances; a script of which nobody knows what it touches, and one
# that certainly keeps to its key.
COMPANIONS: Final[dict[str, list[bytes]]] = {
    "copies": [b"LCS", FIRST.encode(), SECOND.encode()],
    "several": [b"MSET", *(word for key in ELSEWHERE for word in (key.encode(), b"x"))],
    "script": [b"EVAL", b"return redis.call('INCR', ARGV[1])", b"0", b"counter:undeclared"],
    "sure script": [b"EVAL", b"return redis.call('INCR', KEYS[1])", b"1", b"counter:declared"],
}
LENGTHS: Final = {
    b"string": "STRLEN", b"list": "LLEN", b"set": "SCARD", b"zset": "ZCARD", b"hash": "HLEN",
    b"stream": "XLEN",
}  # fmt: skip
TURNS: Final = range(2 * len(COMPANIONS))  # each command with each of them, in either order
FULL: Final = os.environ.get("THREADIS_TORTURE") == "full"
DATABASES: Final = (0, 1, 2)
# Between MULTI and EXEC they are something else, or are told of what else there is.
NOT_HERE: Final = (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"RESET", b"QUIT", b"RANDOMKEY")


@pytest.mark.sample
@pytest.mark.parametrize("turn", TURNS if FULL else TURNS[:1])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_command(pair: Pair, protocol: int, name: str, turn: int) -> None:
    with pair.both(protocol) as both:
        both.same("FLUSHALL")
        for number, line in enumerate(lines(SCENARIOS[name]), turn):
            how, words = marked(line)
            if words[0].upper() in NOT_HERE:
                continue
            others = list(COMPANIONS.values())
            commands = [others[number % len(others)], words]
            if number // len(others) % 2:
                commands.reverse()
            batch = [[b"MULTI"], *commands, [b"EXEC"]]
            bare, ours = both.bare.ask_all(batch), both.ours.ask_all(batch)
            assert [one.raw for one in ours[:-1]] == [one.raw for one in bare[:-1]], line
            assert len(ours[-1].elements) == len(bare[-1].elements), (line, ours[-1].raw)
            if bare[-1].is_error:
                assert ours[-1].raw == bare[-1].raw, line
                continue
            for command, theirs, got in zip(
                commands, bare[-1].elements, ours[-1].elements, strict=True
            ):
                mode = how if command is words else None
                assert not both.differ(command, theirs, got, mode), (
                    f"{line}: {theirs.raw[:400]!r} expected, {got.raw[:400]!r}"
                )
        same_state(both)


SAYS: Final = "redis.call('PUBLISH', 'c', ARGV[1]) return redis.call('SET', {}, ARGV[1])"
OTHERS: Final[dict[str, tuple[str | int, ...]]] = {
    "none": ("PING",),
    "sure": ("EVAL", SAYS.format("KEYS[1]"), 1, FIRST, "s1"),
    "elsewhere": ("EVAL", SAYS.format("KEYS[1]"), 1, SECOND, "s2"),
    "undeclared": ("EVAL", SAYS.format("ARGV[2]"), 0, "s3", "undeclared"),
    "on copies": ("LCS", FIRST, SECOND),
}


@pytest.mark.parametrize("flags", ["", "KEA"])
@pytest.mark.parametrize("others", list(itertools.combinations(OTHERS, 2)), ids="+".join)
def test_all_is_told_in_order(pair: Pair, others: tuple[str, str], flags: str) -> None:
    one, other = map(OTHERS.__getitem__, others)
    with pair.both() as both, pair.both() as listening:
        both.same("FLUSHALL")
        both.same("CONFIG", "SET", "notify-keyspace-events", flags)
        both.same("MSET", FIRST, "x", SECOND, "y")
        listening.same("PSUBSCRIBE", "c*", "__keyevent@0__:set")
        lines: list[tuple[str | int, ...]] = [
            ("MULTI",), ("PUBLISH", "c", "p1"), ("SET", FIRST, 1), one, ("PUBLISH", "c2", "p2"),
            other, ("SET", SECOND, 2), one, ("PUBLISH", "c", "p3"), ("EXEC",),
        ]  # fmt: skip
        both.same_all([[str(word).encode() for word in line] for line in lines])
        both.same("PUBLISH", "c", "end")
        told: list[list[bytes]] = []
        for side in (listening.bare, listening.ours):
            side.read()  # the second confirmation
            told.append([])
            while told[-1][-1:] != [b"end"]:
                told[-1].append(side.read().elements[-1].text)
        both.same("CONFIG", "SET", "notify-keyspace-events", "")
        assert told[1] == told[0]


@pytest.mark.parametrize(
    "command", ["MSET {0} '' {1} ''", "RENAME empty {0}", "COPY empty {0} REPLACE"]
)
@pytest.mark.parametrize("companion", ["LCS {0} {1}", "LCS none nothing", "BLPOP none nothing 0"])
def test_an_empty_value_replaces_another(pair: Pair, command: str, companion: str) -> None:
    with pair.both() as both:
        both.same("FLUSHALL")
        both.same("MSET", FIRST, "x", SECOND, "y", "empty", "")
        for line in ("MULTI", command, companion, "EXEC"):
            both.same(*shlex.split(line.format(FIRST, SECOND)))
        both.same("MGET", FIRST, SECOND, "empty")


@pytest.mark.parametrize("aside", ["PING", "SELECT 0", "TIME", "CLIENT GETNAME"])
def test_invalidations_come_behind_the_reply_to_exec(pair: Pair, aside: str) -> None:
    with pair.both(3) as both:
        both.same("CLIENT", "TRACKING", "ON")
        both.same("MGET", *ELSEWHERE)
        both.same("MULTI")
        both.same("SET", FIRST, 1)
        both.same(*aside.split())
        both.same("EXEC", how="shape")
        invalid(both, FIRST)
        both.same("PING")


def test_who_waits_is_served_once_all_has_run(pair: Pair) -> None:
    with pair.both() as both, pair.both() as waiting:
        both.same("FLUSHALL")
        both.same("CONFIG", "SET", "slowlog-log-slower-than", 0)
        for side, waiter in ((both.bare, waiting.bare), (both.ours, waiting.ours)):
            waiter.send(Both.packed("BLPOP", FIRST, SECOND, 0))
            until(partial(waits, side), "it waits")
        batch = ["MULTI", f"RPUSH {FIRST} x", f"RPUSH {SECOND} y", "PING", "SLOWLOG RESET", "EXEC"]
        both.same_all([line.encode().split() for line in batch])
        assert waiting.ours.read() == waiting.bare.read()
        newest = both.same("SLOWLOG", "GET", 1, how="shape").elements[0].elements[3]
        assert next(word.text for word in newest.elements) == b"BLPOP"
        both.same("CONFIG", "SET", "slowlog-log-slower-than", 10000)


def waits(side: Connection) -> bool:
    return b"blocked_clients:1\r\n" in side.ask("INFO", "clients").raw


def same_state(both: Both) -> None:
    """The same keys in each database, as long, and those that expire."""
    for db in DATABASES:
        both.same("SELECT", db)
        keys = [key.text for key in both.same("KEYS", "*").elements]
        kinds = [both.same("TYPE", key).text for key in keys]
        for key, kind in zip(keys, kinds, strict=True):
            both.same(LENGTHS[kind], key)
            both.same("PEXPIRETIME", key, how="shape")
            if kind == b"stream":
                both.same("XINFO", "GROUPS", key)
