"""Placement rules and pinned databases: no client sees a difference, wherever the keys are."""

import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from differential import scenarios_collections, scenarios_keys, scenarios_streams
from differential.conftest import INSTANCES, check_placement, running_pair
from differential.pair import Pair
from differential.wire import Connection, Word
from threadis import _core
from threadis.config import placement
from threadis.data.layout import even_slot_map
from threadis.supervisor.server import ServerBinary

RULES: Final = ("bull:{*}:*", "{s}*", "h{*}", "{z*}", "*{:}*", "{l}*")
PINS: Final = ((2, 1), (3, 2), (7, 3))
FLAGS: Final = [
    *(word for rule in RULES for word in ("--placement", rule)),
    *(word for db, index in PINS for word in ("--pin-database", f"{db}={index}")),
]
SCENARIOS: Final = (
    scenarios_keys.SCENARIOS | scenarios_collections.SCENARIOS | scenarios_streams.SCENARIOS
)


@pytest.fixture(scope="module")
def pair(stock_server: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A bare server, and ours with rules and pinned databases."""
    with running_pair(stock_server, tmp_path_factory.mktemp("placed"), *FLAGS) as found:
        yield found


@pytest.fixture(autouse=True)
def empty(pair: Pair) -> Iterator[None]:
    """Each test begins with nothing, and ends with every key where it belongs."""
    pair.flush()
    yield
    slot_map = [(one.first, one.last, one.instance) for one in even_slot_map(INSTANCES)]
    rules = [rule.parts() for rule in placement.read(RULES)]
    check_placement(pair.threadis, _core.Placement(slot_map, INSTANCES, rules, PINS))


@pytest.mark.sample
@pytest.mark.parametrize("db", [0, 7])
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(pair: Pair, name: str, db: int) -> None:
    with pair.both(3) as both:
        both.same("SELECT", db)
        for line in SCENARIOS[name].splitlines():
            if line:
                both.same_line(line)


def test_keys_go_from_database_to_database(pair: Pair) -> None:
    """MOVE and COPY, to another instance or not; 16 and 17 are ours and hidden."""
    values = (
        ["SET", "a", "v", "PX", "100000000"],
        ["RPUSH", "b", "x", "y"],
        ["ZADD", "c", "1", "m"],
    )
    with pair.both() as both, pair.both() as waiting:
        for here, there in ((0, 3), (3, 0), (2, 3), (2, 2), (0, 5), (3, 16), (0, 17), (0, 99)):
            both.same("FLUSHALL")
            both.same("SELECT", here)
            for words in values:
                key = words[1]
                both.same(*words)
                both.same("COPY", key, "copy", "DB", there)
                both.same("COPY", key, "copy", "DB", there)
                both.same("COPY", key, "copy", "DB", there, "REPLACE")
                both.same("COPY", key, key, "DB", here)
                both.same("MULTI")
                both.same("COPY", key, f"{key}2", "DB", there)
                both.same("MOVE", key, there)
                both.same("EXEC")
                both.same("SET", key, "again")
                both.same("MOVE", key, there)
                both.same("MOVE", "none", there)
                both.same("EXISTS", key, "copy", f"{key}2")
            if there < 16:
                both.same("SELECT", there)
                both.same("DBSIZE")
                both.same("LRANGE", "b", 0, -1)
                both.same("PEXPIRETIME", "copy", how="shape")
        for bad in ("03", "x", "-1", ""):
            both.same("MOVE", "a", bad)
            both.same("COPY", "a", "other", "DB", bad)
        both.same("FLUSHALL")
        waiting.same("SELECT", 3)
        waiting.bare.send(waiting.packed("BLPOP", "list", 0))
        waiting.ours.send(waiting.packed("BLPOP", "list", 0))
        both.same("SELECT", 0)
        both.same("RPUSH", "list", "x")
        for side in (both.bare, both.ours):
            while b"blocked_clients:1" not in side.ask("INFO", "clients").raw:
                pass
        both.same("MOVE", "list", 3)
        assert waiting.ours.read() == waiting.bare.read()


ADD: Final = """
local id = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[3] .. id, 'data', ARGV[1])
redis.call('LPUSH', KEYS[2], id)
redis.call('ZADD', KEYS[3] .. 'marker', 0, '0')
return id
"""
TAKE: Final = """
local id = redis.call('RPOPLPUSH', KEYS[1], KEYS[2])
if not id then return false end
redis.call('DEL', KEYS[3] .. 'marker')
redis.call('HINCRBY', KEYS[3] .. id, 'attempts', 1)
return redis.call('HGETALL', KEYS[3] .. id)
"""


def test_scripts_of_a_queue_run_directly(pair: Pair) -> None:
    """All they touch begins with one of their keys: so one sees what one server would send."""
    add = ("EVAL", ADD, 3, "bull:mail:id", "bull:mail:wait", "bull:mail:")
    take = ("EVAL", TAKE, 3, "bull:mail:wait", "bull:mail:active", "bull:mail:")
    with pair.both() as both, pair.both() as listening:
        both.same(*take)
        for number in range(5):
            both.same(*add, f"job {number}")
        both.same(*take)
        both.same("CONFIG", "SET", "notify-keyspace-events", "EA")
        listening.same("PSUBSCRIBE", "__keyevent@0__:*")
        both.same(*add, "job")
        both.same(*take)
        events = 4 + 4
        ours = [listening.ours.read().raw for _ in range(events)]
        assert ours == [listening.bare.read().raw for _ in range(events)]
        both.same("CONFIG", "SET", "notify-keyspace-events", "")
        both.same("HGETALL", "bull:mail:6")
        # Keys of another queue are there all the same.
        both.same("EVAL", TAKE, 3, "bull:mail:wait", "bull:mail:active", "bull:other:")
        both.same("EVAL", TAKE, 3, "bull:mail:wait", "bull:mail:active", "other:")
        both.same("EXISTS", "bull:other:5", "other:4", "bull:mail:active")


def test_scripts_in_a_pinned_database_see_all_of_it(pair: Pair) -> None:
    with pair.both() as both:
        both.same("SELECT", 3)
        for _ in range(2):
            both.same("EVAL", "for i = 1, 9 do redis.call('SET', 'key' .. i, i) end", 0)
            both.same("EVAL", "return redis.call('DBSIZE')", 0)
            both.same("EVAL", "return redis.call('MGET', 'key1', KEYS[1])", 1, "key2")
            both.same("EVAL", "return #redis.call('KEYS', '*')", 0)
        both.same("EVAL", "return redis.call('SELECT', 0)", 0)
        for name in ("FLUSHALL", "MOVE key1 0"):
            words = ", ".join(f"'{word}'" for word in name.split())
            refused = both.ours.ask("EVAL", f"return redis.call({words})", 0)
            assert refused.raw.startswith(b"-ERR threadis: "), name
            assert b" inside a script " in refused.raw, name
        both.same("EVAL", "return redis.call('FLUSHDB')", 0)
        both.same("DBSIZE")


def test_scripts_have_their_own_guard_wherever_others_ran_before(pair: Pair) -> None:
    """Also in MULTI; what ran before was on copies, and might touch only these."""
    undeclared = (
        "redis.call('SET', 'p:' .. ARGV[1], 1) return redis.call('SET', 'q:' .. ARGV[1], 1)"
    )
    scripts: list[list[Word]] = [
        ["EVAL", "redis.call('SET', KEYS[1], 1) return redis.call('PUBLISH', 'c', 'x')", 1, "k"],
        ["EVAL", "return {redis.call('DBSIZE'), redis.call('KEYS', '*')}", 0],
        ["EVAL", undeclared, 0, "other"],
        ["EVAL", "return redis.call('INCR', KEYS[1])", 1, "n"],
        ["EVAL", "return 1", 0],
    ]
    with pair.both() as both:
        for script in scripts:
            for before in range(3):
                both.same("FLUSHALL")
                both.same("SELECT", 0)
                for _ in range(before):
                    for number in range(4):  # wherever that is done
                        both.same("EVAL", undeclared, 0, number)
                both.same("SELECT", 3)
                both.same(*script)
                both.same("MULTI")
                both.same(*script)
                both.same("SET", "w", 1)
                both.same(*script)
                both.same("EXEC")
                both.same("MGET", "k", "n", "p:other", "q:other")


def test_no_script_comes_between_the_steps_of_another(pair: Pair) -> None:
    """One works on copies of keys of two instances, the others touch one of these undeclared."""
    times, rounds = 60, []
    both_keys = ("EVAL", "redis.call('INCR', KEYS[2]) return redis.call('INCR', KEYS[1])", 2)
    undeclared = ("EVAL", "return redis.call('INCR', ARGV[1] .. 'n')", 1, "bull:q:wait", "bull:q:")

    def run(*words: Any) -> None:
        connection = pair.ours()
        replies = [connection.ask(*words) for _ in range(times)]
        rounds.append([reply.raw for reply in replies if reply.is_error])
        connection.close()

    without = ("EVAL", "return redis.call('INCR', ARGV[1] .. 'n')", 0, "bull:q:")
    commands = [(*both_keys, "bull:q:n", "a1"), undeclared, without]
    threads = [threading.Thread(target=run, args=command) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rounds == [[], [], []]
    connection: Connection = pair.ours()
    assert connection.ask("GET", "bull:q:n").text == b"%d" % (3 * times)
    connection.close()
