"""Random small programs over few keys of mixed types: what one server says, the other says."""

import os

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from differential.pair import Pair

TIMES = ("EXPIRETIME", "PEXPIRETIME")
APART = 5  # seconds between the same command on both sides

FULL = os.environ.get("THREADIS_TORTURE") == "full"
KEYS = ["a", "b", "c", "{t}1", "{t}2", "{t}3"]
VALUES = ["", "a", "b", "10", "-3", "1.5", "\x00\r\n", "99999999999999999999"]

KEY, TAGGED = st.sampled_from(KEYS), st.sampled_from(KEYS[3:])
VALUE, NUMBER = st.sampled_from(VALUES), st.sampled_from(["0", "1", "2", "-1", "5", "x"])

TEMPLATES = """
SET k v|SET k v NX|SET k v XX GET|GET k|GETDEL k|APPEND k v|INCR k|INCRBY k n|DECRBY k n|STRLEN k
SETRANGE k n v|GETRANGE k n n|INCRBYFLOAT k v|SETBIT k n n|BITCOUNT k|GETSET k v|SETNX k v
MSET k v k v k v|MGET k k k k|DEL k k|EXISTS k k k|UNLINK k|TOUCH k k|TYPE k
RPUSH k v v|LPUSH k v|LPOP k|RPOP k n|LRANGE k n n|LLEN k|LINDEX k n|LSET k n v|LREM k n v
LTRIM k n n|LINSERT k BEFORE v v|LPOS k v|LMOVE t t LEFT RIGHT|RPOPLPUSH t t|LMPOP 2 t t LEFT
SADD k v v|SREM k v|SISMEMBER k v|SCARD k|SMEMBERS k|SMOVE t t v|SINTER t t|SUNION t t|SDIFF t t
SINTERSTORE t t t|SUNIONSTORE t t t|SDIFFSTORE t t t|SINTERCARD 2 t t|SMISMEMBER k v v
ZADD k n v|ZADD k NX n v n v|ZADD k INCR n v|ZREM k v|ZSCORE k v|ZRANGE k n n WITHSCORES|ZCARD k
ZRANK k v|ZINCRBY k n v|ZPOPMIN k|ZPOPMAX k n|ZCOUNT k n n|ZUNIONSTORE t 2 t t|ZINTER 2 t t
ZRANGESTORE t t n n|ZREMRANGEBYRANK k n n|ZRANGEBYSCORE k n n|ZMPOP 2 t t MIN|ZDIFF 2 t t
HSET k v v|HGET k v|HDEL k v|HGETALL k|HKEYS k|HVALS k|HLEN k|HINCRBY k v n|HMGET k v v|HSETNX k v v
XADD k 1-* v v|XLEN k|XRANGE k - +|XDEL k 1-1|XTRIM k MAXLEN n|XGROUP CREATE k g 0|XREVRANGE k + -
PFADD k v v|PFCOUNT k|PFCOUNT t t|PFMERGE t t|GEOADD k 1 1 v|GEOPOS k v
RENAME t t|RENAMENX t t|COPY t t|COPY t t REPLACE|EXPIRE k 1000|PERSIST k|EXPIREAT k 1|EXPIRETIME k
PEXPIREAT k 99999999999123 NX|PEXPIRETIME k|MOVE k 1|SELECT 1|SELECT 0|DBSIZE|KEYS *|FLUSHDB|DUMP k
SORT k|SORT k ALPHA DESC|LCS t t|BITOP OR t t t|BITFIELD k INCRBY u8 n n|SUBSTR k n n
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
PLACES = {"k": KEY, "t": TAGGED, "v": VALUE, "n": NUMBER}

COMMANDS = st.sampled_from(TEMPLATES).flatmap(
    lambda template: st.tuples(*(PLACES.get(word, st.just(word)) for word in template.split()))
)
PROGRAMS = st.lists(COMMANDS, min_size=1, max_size=40)


def run(pair: Pair, program: list[tuple[str, ...]], protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("FLUSHALL")
        # Either runs EXPIRE at a moment of its own: when a key goes is compared at the end.
        both.same_marked(
            [
                ("shape" if command[0] in TIMES else None, [word.encode() for word in command])
                for command in program
            ]
        )
        for db in (0, 1):
            both.same("SELECT", db)
            both.same("KEYS", "*")
            for key in KEYS:
                both.same("TYPE", key)
                sides = (both.bare.ask("EXPIRETIME", key), both.ours.ask("EXPIRETIME", key))
                bare, ours = (reply.number for reply in sides)
                assert abs(bare - ours) <= APART and (bare < 0) == (ours < 0)


@seed(20261123)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=False,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=PROGRAMS, protocol=st.sampled_from([2, 3]))
def test_a_sample(pair: Pair, program: list[tuple[str, ...]], protocol: int) -> None:
    run(pair, program, protocol)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@settings(
    max_examples=2000 if FULL else 20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(COMMANDS, min_size=1, max_size=120), protocol=st.sampled_from([2, 3]))
def test_many(pair: Pair, program: list[tuple[str, ...]], protocol: int) -> None:
    run(pair, program, protocol)
