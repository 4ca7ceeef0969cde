"""Commands with thousands of keys: answered as by one server, in few steps. Counted, not timed."""

import asyncio
import contextlib
import itertools
import threading
from typing import Any, Final, cast

import pytest

from differential.conftest import INSTANCES
from differential.pair import Both, Pair
from differential.wire import Connection, Word, pack
from raw import keys_of
from threadis import _core
from threadis.coordinator.base.offload import LARGE, offload
from threadis.coordinator.instances.links import Kind
from threadis.coordinator.instances.subscriptions import BATCH, KINDS, PATTERN, batch_size
from threadis.coordinator.keys.colocation import Colocation
from threadis.coordinator.keys.watched_keys import COMPARED_MOST, KEYS_MOST, slices
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.multikey.borrowing import surrounding_commands
from threadis.coordinator.scripting.in_place import NAMES_MOST, InPlace
from threadis.data.layout import even_slot_map
from waiting import until

MANY: Final = [f"many:{number}" for number in range(INSTANCES * KEYS_MOST + 2000)]
ON_ONE: Final = list(itertools.islice(keys_of(0, INSTANCES), NAMES_MOST + 1))
OTHER: Final = next(keys_of(1, INSTANCES))
SCRIPTS: Final = {
    "proved": "for _, key in ipairs(KEYS) do redis.call('INCR', key) end return #KEYS",
    "undeclared": "redis.call('SET', KEYS[#KEYS], ARGV[1]) return redis.call('INCR', ARGV[1])",
    "fails": "redis.call('SET', KEYS[1], 'new') return redis.call('INCR', KEYS[1])",
}  # fmt: skip


def lent(side: Connection) -> int:
    return int(side.ask("INFO", "threadis").text.split(b"threadis_lent_links:")[1].split()[0])


def transaction(both: Both) -> None:
    both.same("MULTI")
    both.same("INCR", MANY[0])
    both.same("GET", MANY[-1])
    both.same("EXEC")


def test_watched_keys_are_spread_over_connections(pair: Pair) -> None:
    """A server compares each with all that are watched on its connection."""
    pair.flush()
    with pair.both() as both, pair.both() as others:
        before = min(lent(others.ours) for _ in range(20))  # some are lent for moments
        both.same("WATCH", *MANY)
        both.same("WATCH", *MANY)
        until(lambda: lent(others.ours) == before + 2 * INSTANCES, "twice as many are lent")
        transaction(both)
        until(lambda: lent(others.ours) == before, "connections are given back")
        for changed in (MANY[0], MANY[-1]):
            both.same("WATCH", *MANY)
            others.same("SET", changed, 1)
            transaction(both)
        both.same("WATCH", *MANY)
        both.same("UNWATCH")
        others.same("SET", MANY[1], 1)
        transaction(both)
        until(lambda: lent(others.ours) == before, "connections are given back")


def test_an_instance_that_watches_more_is_told_of_fewer_at_once() -> None:
    keys = [b"%d" % number for number in range(KEYS_MOST)]
    for watched in (0, KEYS_MOST, 100 * KEYS_MOST, COMPARED_MOST):
        some = list(slices(keys, watched))
        assert [key for part in some for key in part] == keys
        assert max(map(len, some)) * watched <= COMPARED_MOST


def test_an_instance_that_has_more_patterns_is_told_of_fewer_at_once() -> None:
    for made in (0, 1000, 100_000, COMPARED_MOST):
        assert 0 < batch_size(PATTERN, made) * made <= COMPARED_MOST or not made
    assert {batch_size(kind, COMPARED_MOST) for kind in KINDS if kind != PATTERN} == {BATCH}


def test_thousands_of_patterns(pair: Pair) -> None:
    patterns = [f"pattern:{number}:*" for number in range(3000)]
    with contextlib.closing(pair.ours()) as ours, contextlib.closing(pair.ours()) as other:
        ours.send(pack("PSUBSCRIBE", *patterns))
        assert [ours.read().elements[2].number for _ in patterns] == [*range(1, 3001)]
        script = "return redis.call('PUBLISH', ARGV[1], 'said')"
        other.ask("EVAL", script, 0, "pattern:2999:x")
        assert ours.read().elements[1].text == patterns[-1].encode()


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_scripts(pair: Pair, name: str) -> None:
    for keys in (ON_ONE, [*ON_ONE, OTHER]):
        pair.flush()
        with pair.both() as both:
            for _ in range(2):
                both.same("EVAL", SCRIPTS[name], len(keys), *keys, OTHER)
            both.same("MGET", *keys, OTHER)


def test_what_a_script_with_many_keys_has_changed_is_one_question() -> None:
    before, behind = surrounding_commands({}, ON_ONE, sweeps=True)
    assert (len(before), len(behind)) == (0, 1)


def test_times_to_live_are_those_that_a_script_with_many_keys_has_left(pair: Pair) -> None:
    keys = [*ON_ONE, OTHER]
    soon, late = 10**14 + 7, 2**53 + 1
    script = (
        "redis.call('INCR', KEYS[1]) redis.call('INCR', KEYS[2]) redis.call('PERSIST', KEYS[3]) "
        "redis.call('SET', KEYS[4], 'new', 'PXAT', ARGV[1]) redis.call('PEXPIRE', KEYS[5], 0) "
    )
    pair.flush()
    with pair.both() as both:
        for key in keys[:5]:
            both.same("SET", key, 1)
            both.same("PEXPIREAT", key, soon)
        both.same("PEXPIREAT", keys[1], late)
        both.same("EVAL", script, len(keys), *keys, soon + 1)
        for key in keys[:6]:
            both.same("GET", key)
            both.same("PEXPIRETIME", key)
        # Lua cannot tell this time exactly, so nothing is done.
        refused = both.ours.ask("EVAL", script, len(keys), *keys, late)
        assert b"expires so late" in refused.text
        both.same("GET", keys[0])


def test_a_guard_is_told_of_few_names() -> None:
    """A server compares each of them with each key that a script touches."""
    placed = _core.Placement(
        [(one.first, one.last, one.instance) for one in even_slot_map(INSTANCES)], INSTANCES
    )
    in_place = InPlace.__new__(InPlace)
    in_place._execution = cast(Any, _Execution(Colocation(placed, [], [])))
    in_place._links = cast(Any, _Links())

    def can_name(keys: list[bytes]) -> bool:
        words = [b"EVAL", b"return 1", b"%d" % len(keys), *keys]
        call = ScriptCall(b"", words, keys, 0, Kind(), True, None, None, cast(Any, None), b"")
        return in_place.can_name(call)

    assert can_name(ON_ONE[:NAMES_MOST])
    assert not can_name(ON_ONE)
    assert can_name([ON_ONE[0]] * len(ON_ONE))
    assert can_name([b"{tag}" + key for key in ON_ONE])
    assert not can_name([b"{%b}" % key for key in ON_ONE])


LISTS: Final = [f"list:{number}" for number in range(3000)]
STREAMS: Final = [f"stream:{number}" for number in range(2500)]


def reads(side: Connection) -> int:
    """How often the instances have read from a connection."""
    return int(side.ask("INFO", "everything").text.split(b"total_reads_processed:")[1].split()[0])


class Counted:
    """Both servers, and how often instances read for what ours is asked."""

    def __init__(self, both: Both, ours: Connection) -> None:
        self._both, self._ours = both, ours

    def same(self, *words: Word, most: int = 700) -> None:
        before = reads(self._ours)
        self._both.same(*words)
        assert reads(self._ours) - before < most, words[0]


def test_the_first_of_many_keys_is_found_in_few_steps(pair: Pair) -> None:
    pair.flush()
    with pair.both() as both, contextlib.closing(pair.ours()) as ours:
        counted = Counted(both, ours)
        for name, kind, end in (("LMPOP", "RPUSH", "LEFT"), ("ZMPOP", "ZADD", "MIN")):
            counted.same(name, len(LISTS), *LISTS, end)
            both.same(kind, LISTS[-1], 1, 2)
            both.same(kind, LISTS[-9], 3, 4)
            counted.same(name, len(LISTS), *LISTS, end, "COUNT", 3)
            counted.same("B" + name, 0, len(LISTS), *LISTS, end)
            both.same("SET", LISTS[-2], "text")
            counted.same(name, len(LISTS), *LISTS, end)
            both.same("DEL", LISTS[-1], LISTS[-2], LISTS[-9])
            counted.same(name, len(LISTS), *LISTS, "UP")
            counted.same("B" + name, "0.01", len(LISTS), *LISTS, end)
        counted.same("BLPOP", *LISTS, "0.01")
        both.same("RPUSH", LISTS[-1], 1, 2)
        counted.same("BRPOP", *LISTS, 0)


def test_many_streams_are_read_in_few_steps(pair: Pair, protocol: int) -> None:
    pair.flush()
    with pair.both(protocol) as both, contextlib.closing(pair.ours()) as ours:
        counted = Counted(both, ours)
        both.same_all(
            [[b"XGROUP", b"CREATE", key.encode(), b"g", b"0", b"MKSTREAM"] for key in STREAMS]
        )
        both.same("XADD", STREAMS[-1], "1-1", "a", "b")
        group = ("XREADGROUP", "GROUP", "g", "me")
        counted.same(*group, "STREAMS", *STREAMS, *[">"] * len(STREAMS))
        counted.same("XREAD", "STREAMS", *STREAMS, *["0"] * len(STREAMS))
        counted.same("XREAD", "BLOCK", 10, "STREAMS", *STREAMS, *["$"] * len(STREAMS))
        both.same("XGROUP", "DESTROY", STREAMS[-2], "g")
        counted.same(*group, "STREAMS", *STREAMS, *[">"] * len(STREAMS))
        both.same("SET", STREAMS[-3], "text")
        counted.same(*group, "STREAMS", *STREAMS, *[">"] * len(STREAMS))
        counted.same("XREAD", "STREAMS", *STREAMS, *["0"] * len(STREAMS))
        counted.same("XREAD", "BLOCK", 10, "STREAMS", *STREAMS, *["$"] * len(STREAMS))


SETS: Final = [f"set:{number}" for number in range(LARGE + 500)]


def hits(side: Connection) -> int:
    """How often instances have looked for a key that was there."""
    return int(side.ask("INFO", "stats").text.split(b"keyspace_hits:")[1].split()[0])


@pytest.mark.parametrize("of", ["members", "numbers"])
def test_very_many_sets_are_not_copied(pair: Pair, protocol: int, of: str) -> None:
    pair.flush()
    beginning = "" if of == "numbers" else "m"
    with pair.both(protocol) as both, contextlib.closing(pair.ours()) as ours:
        both.same_all([
            [b"SADD", name.encode(), b"%s%d" % (beginning.encode(), at % 50), b"7"]
            for at, name in enumerate(SETS)
        ])  # fmt: skip
        both.same("SADD", SETS[0], "only here")
        lists = [SETS, [*SETS, "none"], ["none", *SETS], [*SETS, *SETS[:2]]]
        for name, names in itertools.product(("SUNION", "SINTER", "SDIFF"), lists):
            before = hits(ours)
            both.same(name, *names, how="unordered")
            for target in ("target", SETS[1], "0", "1"):
                both.same("COPY", SETS[1], "kept", "REPLACE")
                both.same(f"{name}STORE", target, *names)
                for what in ("TYPE", "TTL", "SCARD"):
                    both.same(what, target)
                both.same("SMEMBERS", target, how="unordered")
                both.same("COPY", "kept", SETS[1], "REPLACE")
            assert hits(ours) - before < 6 * len(names)  # copies are looked for three times each
        both.same("SET", SETS[-3], "text")
        for name in ("SUNION", "SINTER", "SDIFF"):
            both.same(name, *SETS)
            both.same(f"{name}STORE", "target", *SETS)
        both.same("EXISTS", "target")


SCORES: Final = ("1", "-2.5", "3.1e-7", "inf", "-inf", "0.1", "12345678901234567", "0", "0.3")


def test_very_many_sorted_sets_are_not_copied(pair: Pair, protocol: int) -> None:
    """Unless the scores depend on the order: sums do, and which of 0 and -0 is the least."""
    pair.flush()
    with pair.both(protocol) as both, contextlib.closing(pair.ours()) as ours:
        both.same_all([
            [b"ZADD", name.encode(), SCORES[at % 9].encode(), b"m%d" % (at % 50),
             SCORES[at % 7].encode(), b"7"]
            for at, name in enumerate(SETS[:-1])
        ])  # fmt: skip
        both.same("ZADD", SETS[0], "0.1", "only here")
        both.same("SADD", SETS[-1], "7", "of a set")
        lists = [SETS, ["none", *SETS], [*SETS, *SETS[:2]], [SETS[0], *SETS[60:]]]
        kinds = [
            ("ZUNION", "AGGREGATE", "MIN"), ("ZUNION", "aggregate", "max"),
            ("ZINTER", "AGGREGATE", "MAX"), ("ZINTER", "AGGREGATE", "MIN"), ("ZDIFF",),
        ]  # fmt: skip
        for (name, *options), names in itertools.product(kinds, lists):
            before = hits(ours)
            both.same(name, len(names), *names, *options)
            both.same(name, len(names), *names, *options, "withscores")
            for target in ("target", SETS[1], "0", "1"):
                both.same("COPY", SETS[1], "kept", "REPLACE")
                both.same(f"{name}STORE", target, len(names), *names, *options)
                for what in ("TYPE", "TTL", "ZCARD"):
                    both.same(what, target)
                both.same("ZRANGE", target, 0, -1, "WITHSCORES")
                both.same("COPY", "kept", SETS[1], "REPLACE")
            assert hits(ours) - before < 7 * len(names)  # copies are looked for three times each
        for end in (
            ["WEIGHTS", *["1"] * len(SETS), "AGGREGATE", "MAX"],
            ["AGGREGATE", "AVG"],
            ["X"],
        ):
            both.same("ZUNION", len(SETS), *SETS, *end)
        both.same("ZUNIONSTORE", "target", len(SETS), *SETS, "AGGREGATE", "MAX", "WITHSCORES")
        both.same("ZINTER", len(SETS), *SETS)
        for at, name in enumerate(SETS):
            both.same("ZADD", name, ("0", "-0")[at % 2], "zero")
        both.same("ZUNION", 2 * len(SETS), *SETS, *SETS, "AGGREGATE", "MAX")
        both.same("SET", SETS[-3], "text")
        both.same("ZUNION", len(SETS), *SETS, "AGGREGATE", "MIN")
        both.same("ZDIFFSTORE", "target", len(SETS), *SETS)


class _Execution:
    def __init__(self, colocation: Colocation) -> None:
        self.colocation = colocation


class _Links:
    count = INSTANCES


def test_a_long_transaction_with_a_command_over_several_instances(pair: Pair) -> None:
    """Its parts are worked out beside what others ask."""
    pair.flush()
    names = [f"queued:{number}" for number in range(LARGE + 1)]
    queued = b"".join(pack("SET", name, name) for name in names)
    block = pack("MULTI") + queued + pack("RENAME", MANY[0], MANY[1]) + pack("EXEC")
    with pair.both() as both:
        both.same("SET", MANY[0], 1)
        sides = (both.bare, both.ours)
        for side in sides:
            side.send(block)
        bare, ours = ([side.read().raw for _ in range(len(names) + 3)] for side in sides)
        assert ours == bare
        assert ours[-1].startswith(b"*%d\r\n+OK" % (len(names) + 1))
        both.same("MGET", *names, *MANY[:2])


def test_what_is_large_is_worked_out_in_another_thread() -> None:
    async def threads() -> list[int]:
        return [await offload(size, threading.get_ident) for size in (0, LARGE - 1, LARGE)]

    small, nearly, large = asyncio.run(threads())
    assert small == nearly == threading.get_ident() != large
