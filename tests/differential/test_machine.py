"""A machine of several clients: random programs of commands, transactions, blocking, scripts.

Each step is done on the bare server and on thREaDIS, and both must come to rest in the same state
before the next: the same replies, the same clients blocked. So the order is fixed, and every
reply is compared byte for byte.
"""

import os
import select
from functools import partial
from typing import Final

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from differential.pair import Pair
from differential.wire import Connection
from waiting import until

REST: Final = 6.0  # seconds for thREaDIS to do what the bare server did
FULL = os.environ.get("THREADIS_TORTURE") == "full"
CLIENTS: Final = 4
# Four keys, of one instance each, and two that share one.
KEYS: Final = ["a", "b", "c", "d", "{t}1", "{t}2"]
KEY, VALUE = st.sampled_from(KEYS), st.sampled_from(["x", "y", "7", "-3", ""])
NUMBER = st.sampled_from(["0", "1", "2", "-1"])

INCREMENT: Final = "return redis.call('INCR', KEYS[1])"
MOVE: Final = "return redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')"
PUSH_ALL: Final = "for _, key in ipairs(KEYS) do redis.call('RPUSH', key, ARGV[1]) end return 1"
HALF: Final = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('LPUSH', KEYS[2], 1)"
CAUGHT: Final = "return redis.pcall('HSET', KEYS[1], 'f', redis.call('EXISTS', unpack(KEYS)))"

PLAIN: Final = """
SET k v|GET k|INCR k|APPEND k v|GETDEL k|SETNX k v|MSET k v k v|MSETNX k v k v|MGET k k k|DEL k k
EXISTS k k k|TYPE k|RENAME k k|RENAMENX k k|COPY k k REPLACE|PERSIST k|EXPIREAT k 1|EXPIRETIME k
RPUSH k v v|LPUSH k v|LPOP k|RPOP k n|LRANGE k 0 -1|LMOVE k k LEFT RIGHT|LMPOP 2 k k LEFT COUNT 2
SADD k v v|SREM k v|SCARD k|SMOVE k k v|SINTERSTORE k k k|SUNIONSTORE k k k|SDIFF k k|SISMEMBER k v
ZADD k n v|ZPOPMIN k|ZRANGE k 0 -1 WITHSCORES|ZUNIONSTORE k 2 k k|ZMPOP 2 k k MIN
ZRANGESTORE k k 0 1|HSET k v v|HDEL k v|HGETALL k|XADD k 1-* f v|XLEN k|XRANGE k - +
SORT k ALPHA STORE k|BITOP OR k k k|PFADD k v|PFCOUNT k k|PFMERGE k k|LCS k k|DBSIZE|FLUSHDB
SWAPDB 0 1|MOVE k 1|SELECT 0|SELECT 1|NOSUCH k|SET k
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
BLOCKING: Final = """
BLPOP k 0|BLPOP k k 0|BRPOP k k 0|BLMOVE k k LEFT RIGHT 0|BRPOPLPUSH k k 0|BLMPOP 0 2 k k LEFT
BZPOPMIN k 0|BZPOPMAX k k 0|BZMPOP 0 2 k k MAX|XREAD BLOCK 0 STREAMS k $|XREAD BLOCK 0 STREAMS k 0
BLPOP k x|BLPOP k -1
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
PLACES: Final = {"k": KEY, "v": VALUE, "n": NUMBER}


def filled(template: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.tuples(*(PLACES.get(word, st.just(word)) for word in template.split()))


SCRIPTS: Final = st.one_of(
    st.tuples(st.just("EVAL"), st.just(INCREMENT), st.just("1"), KEY),
    st.tuples(st.just("EVAL"), st.just(MOVE), st.just("2"), KEY, KEY),
    st.tuples(st.just("EVAL"), st.just(PUSH_ALL), st.just("3"), KEY, KEY, KEY, VALUE),
    st.tuples(st.just("EVAL"), st.just(HALF), st.just("2"), KEY, KEY, VALUE),
    st.tuples(st.just("EVAL"), st.just(CAUGHT), st.just("2"), KEY, KEY),
)
CLIENT: Final = st.integers(0, CLIENTS - 1)
COMMAND: Final = st.one_of(
    st.sampled_from(PLAIN).flatmap(filled),
    st.sampled_from(PLAIN).flatmap(filled),
    st.sampled_from(BLOCKING).flatmap(filled),
    SCRIPTS,
    st.sampled_from([("MULTI",), ("EXEC",), ("EXEC",), ("DISCARD",), ("UNWATCH",)]),
    st.sampled_from(["WATCH k", "WATCH k k k"]).flatmap(filled),
    # Steps of the machine itself.
    st.tuples(st.sampled_from(["*EXPIRE", "*HANG UP"]), KEY),
)
STEPS: Final = st.lists(st.tuples(CLIENT, COMMAND), min_size=1, max_size=60)


class Machine:
    """The clients on both sides, and which of them are owed a reply."""

    def __init__(self, pair: Pair, protocol: int) -> None:
        self.pair, self.protocol = pair, protocol
        self.control = pair.both()
        self.control.same("FLUSHALL")
        self.clients = [pair.both(protocol) for _ in range(CLIENTS)]
        self.waiting: dict[int, list[bytes]] = {}  # by client: the command
        self.in_multi: set[int] = set()

    def close(self) -> None:
        """Hang up; nobody waits any more."""
        for client in self.clients:
            client.__exit__()
        self.waiting.clear()
        self.come_to_rest()
        self.control.__exit__()

    def step(self, number: int, words: tuple[str, ...]) -> None:
        """One client does one thing."""
        client, name = self.clients[number], words[0]
        if name == "*HANG UP":
            client.__exit__()
            self.waiting.pop(number, None)
            self.in_multi.discard(number)
            self.clients[number] = self.pair.both(self.protocol)
        elif number in self.waiting:
            return
        elif name == "*EXPIRE":
            if number not in self.in_multi:
                client.same("PEXPIRE", words[1], 1)
                for side in (client.bare, client.ours):
                    until(partial(is_absent, side, words[1]), "it expires")
        else:
            command = [word.encode() for word in words]
            for side in (client.bare, client.ours):
                side.send(client.packed(*command))
            self.waiting[number] = command
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Take the replies that the bare server has sent; ours must send the same, and no more."""
        until(lambda: self.blocked_on_bare() is not None, "the bare server comes to rest")
        blocked = self.blocked_on_bare()
        for number in [number for number in self.waiting if number not in (blocked or ())]:
            command, client = self.waiting.pop(number), self.clients[number]
            until(partial(readable, client.ours), f"{number}: {command!r}", REST)
            bare, ours = client.bare.read(), client.ours.read()
            assert not client.differ(command, bare, ours), (
                f"{number}: {command!r}\nexpected {bare.raw!r}\ngot {ours.raw!r}"
            )
            if command == [b"MULTI"] and not bare.is_error:
                self.in_multi.add(number)
            elif command in ([b"EXEC"], [b"DISCARD"]):
                self.in_multi.discard(number)
        count = len(self.waiting)
        until(lambda: count_blocked(self.control.ours) == count, f"{count} are blocked", REST)
        early = [number for number in self.waiting if readable(self.clients[number].ours)]
        assert not early, f"the bare server lets {early} wait"

    def blocked_on_bare(self) -> list[int] | None:
        """Who is blocked, if each client that is owed a reply either has one or is blocked."""
        count = count_blocked(self.control.bare)
        silent = [number for number in self.waiting if not readable(self.clients[number].bare)]
        return silent if len(silent) == count else None


def is_absent(side: Connection, key: str) -> bool:
    """Whether a key is not there."""
    return not side.ask("EXISTS", key).number


def readable(connection: Connection) -> bool:
    return bool(select.select([connection.socket], [], [], 0)[0])


def count_blocked(connection: Connection) -> int:
    text = connection.ask("INFO", "clients").text
    return int(text.split(b"blocked_clients:")[1].split(b"\r")[0])


def run(pair: Pair, steps: list[tuple[int, tuple[str, ...]]], protocol: int) -> None:
    machine = Machine(pair, protocol)
    try:
        for number, words in steps:
            machine.step(number, words)
        with pair.both() as both:
            for db in (0, 1):
                both.same("SELECT", db)
                both.same("KEYS", "*")
                for key in KEYS:
                    both.same("TYPE", key)
                    both.same("DUMP", key, how="shape")
    finally:
        machine.close()


@seed(20261124)
@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, protocol=st.sampled_from([2, 3]))
def test_a_sample(pair: Pair, steps: list[tuple[int, tuple[str, ...]]], protocol: int) -> None:
    run(pair, steps, protocol)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@settings(
    max_examples=2000 if FULL else 5,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, protocol=st.sampled_from([2, 3]))
def test_many(pair: Pair, steps: list[tuple[int, tuple[str, ...]]], protocol: int) -> None:
    run(pair, steps, protocol)
