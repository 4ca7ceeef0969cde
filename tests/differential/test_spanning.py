"""Commands that a server computes from several keys, which here live on several instances."""

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

KEYS = spread("a", each=1)  # one on each instance
A, B, C, D = KEYS


SCENARIOS: dict[str, list[tuple[str | int | float, ...]]] = {
    "sets": [
        ("SADD", A, *"abcde"),
        ("SADD", B, *"cdefg"),
        ("SINTER", A, B),
        ("SINTERCARD", 2, A, B),
        ("SINTERCARD", 2, A, B, "LIMIT", 1),
        ("SINTERSTORE", D, A, B),
        ("SMEMBERS", D),
        ("SINTERSTORE", D, A, C),
        ("EXISTS", D),
        ("SUNIONSTORE", A, A, B),
        ("SCARD", A),
        ("SDIFF", A, B),
        ("SDIFFSTORE", C, A, B),
        ("SCARD", C),
        ("SET", D, "text"),
        ("SINTER", A, D),
        ("SINTERSTORE", B, A, D),
        ("SCARD", B),
        ("SINTERSTORE", D, A, B),
        ("TYPE", D),
    ],
    "smove": [
        ("SADD", A, "1", "2"),
        ("SMOVE", A, B, "1"),
        ("SMOVE", A, B, "1"),
        ("SMOVE", C, B, "1"),
        ("SMEMBERS", B),
        ("SMOVE", A, B, "2"),
        ("EXISTS", A),
        ("SET", D, "text"),
        ("SMOVE", B, D, "1"),
        ("SMOVE", D, B, "1"),
        ("SMOVE", A, D, "1"),
    ],
    "sorted sets": [
        ("ZADD", A, 1, "a", 2, "b", 3, "c"),
        ("ZADD", B, 10, "b", 20, "c", 30, "d"),
        ("ZUNION", 2, A, B, "WITHSCORES"),
        ("ZINTER", 2, A, B, "WEIGHTS", 2, 3, "WITHSCORES"),
        ("ZDIFF", 2, A, B, "WITHSCORES"),
        ("ZINTERCARD", 2, A, B),
        ("ZUNIONSTORE", C, 2, A, B, "AGGREGATE", "MAX"),
        ("ZRANGE", C, 0, -1, "WITHSCORES"),
        ("ZINTERSTORE", C, 2, A, B),
        ("ZRANGE", C, 0, -1, "WITHSCORES"),
        ("ZDIFFSTORE", C, 2, A, B),
        ("ZRANGE", C, 0, -1, "WITHSCORES"),
        ("ZRANGESTORE", D, A, 0, 1),
        ("ZRANGE", D, 0, -1, "WITHSCORES"),
        ("ZMPOP", 3, "none", B, A, "MIN"),
        ("ZMPOP", 2, "none", "nil", "MIN"),
        ("ZMPOP", 2, "none", B, "MIN", "COUNT", 5),
        ("ZUNIONSTORE", C, 2, A, B, "WEIGHTS", "x", "y"),
        ("ZUNIONSTORE", C, 0, A, B),
    ],
    "lists": [
        ("RPUSH", A, *"abcd"),
        ("LMOVE", A, B, "LEFT", "RIGHT"),
        ("LMOVE", A, B, "RIGHT", "LEFT"),
        ("RPOPLPUSH", A, B),
        ("LRANGE", B, 0, -1),
        ("LMOVE", C, B, "LEFT", "LEFT"),
        ("LMOVE", A, B, "LEFT", "UP"),
        ("RPOPLPUSH", A, B),
        ("EXISTS", A),
        ("LMPOP", 3, A, C, B, "LEFT", "COUNT", 2),
        ("LMPOP", 2, A, C, "LEFT"),
        ("SET", D, "text"),
        ("LMOVE", B, D, "LEFT", "LEFT"),
        ("LMOVE", D, B, "LEFT", "LEFT"),
        ("LMPOP", 2, D, B, "LEFT"),
        ("LRANGE", B, 0, -1),
    ],
    "rename and copy": [
        ("SET", A, "1", "EX", 1000),
        ("RENAME", A, B),
        ("TTL", B),
        ("RENAME", A, B),
        ("SET", C, "3"),
        ("RENAMENX", B, C),
        ("RENAMENX", B, D),
        ("RENAMENX", B, D),
        ("MGET", *KEYS),
        ("COPY", D, A),
        ("COPY", D, A),
        ("COPY", C, A, "REPLACE"),
        ("COPY", C, A, "REPLACE", "WHAT"),
        ("COPY", C, A, "DB", 99),
        ("COPY", C, A, "DB", 3, "REPLACE"),
        ("COPY", B, A, "DB", 3),
        ("MGET", *KEYS),
        ("SELECT", 3),
        ("MGET", *KEYS),
    ],
    "bits and counts": [
        ("SET", A, "foobar"),
        ("SET", B, "abcdef"),
        ("BITOP", "AND", C, A, B),
        ("GET", C),
        ("BITOP", "NOT", D, A),
        ("GET", D),
        ("BITOP", "OR", D, A, "none"),
        ("LCS", A, B),
        ("LCS", A, B, "IDX"),
        ("BITOP", "AND", C, "none", "nil"),
        ("EXISTS", C),
        ("PFADD", C, *"abcdef"),
        ("PFADD", D, *"efgh"),
        ("PFCOUNT", C, D),
        ("PFMERGE", C, D),
        ("PFCOUNT", C),
        ("PFMERGE", C, A),
        ("DEL", A, B),
        ("PFMERGE", A, C, D),
        ("PFCOUNT", A),
    ],
    "sort": [
        ("RPUSH", A, 3, 1, 2),
        ("MSET", "w_1", 9, "w_2", 8, "w_3", 7, "o_1", "one", "o_2", "two"),
        ("HSET", "h_1", "f", 5, "g", "x"),
        ("SORT", A),
        ("SORT", A, "BY", "w_*"),
        ("SORT", A, "BY", "w_*", "GET", "#", "GET", "o_*", "GET", "h_*->g"),
        ("SORT", A, "BY", "h_*->f", "DESC", "LIMIT", 0, 2),
        ("SORT", A, "BY", "nosort", "GET", "o_*"),
        ("SORT", A, "BY", "w_*", "STORE", B),
        ("LRANGE", B, 0, -1),
        ("SORT", "none", "STORE", B),
        ("EXISTS", B),
        ("SORT_RO", A, "BY", "w_*", "GET", "o_*"),
        ("SORT", A, "BY", "o_*"),
        ("SORT", A, "BY"),
        ("SORT", A, "STORE", A),
        ("LRANGE", A, 0, -1),
        ("SET", C, "text"),
        ("SORT", C, "BY", "w_*"),
    ],
    "geo": [
        ("GEOADD", A, 13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"),
        ("GEOSEARCHSTORE", B, A, "FROMLONLAT", 15, 37, "BYRADIUS", 200, "km"),
        ("ZRANGE", B, 0, -1, "WITHSCORES"),
        ("GEORADIUS", A, 15, 37, 200, "km", "STORE", C),
        ("ZRANGE", C, 0, -1),
        ("GEORADIUS", A, 15, 37, 200, "km", "STOREDIST", D),
        ("ZCARD", D),
        ("GEORADIUSBYMEMBER", A, "Palermo", 200, "km", "STORE", D),
        ("GEORADIUS", A, 15, 37, 1, "km", "STORE", C),
        ("EXISTS", C),
    ],
    "msetnx": [
        ("MSETNX", A, 1, B, 2),
        ("MSETNX", C, 1, B, 2),
        ("MSETNX", C, 1, D),
        ("MGET", *KEYS),
        ("MSET", A, 1, B),
        ("UNLINK", *KEYS, "none"),
    ],
}


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        for words in SCENARIOS[name]:
            both.same(*words)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario_in_transactions(pair: Pair, protocol: int, name: str) -> None:
    """The same between MULTI and EXEC: one by one, and all together."""
    with pair.both(protocol) as both:
        for words in SCENARIOS[name]:
            both.same("MULTI")
            both.same(*words)
            both.same("GET", "untouched")
            _same_exec(both)
        both.same("FLUSHALL")
        both.same("SELECT", 0)
        both.same("MULTI")
        for words in SCENARIOS[name]:
            both.same(*words)
        _same_exec(both)


def _same_exec(both: Both) -> None:
    """EXEC's replies; members of a set in any order."""
    ours, stock = both.ours.ask("EXEC"), both.bare.ask("EXEC")
    assert len(ours.elements) == len(stock.elements) > 0
    for mine, theirs in zip(ours.elements, stock.elements, strict=True):
        if mine.raw != theirs.raw:
            assert mine.elements and sorted(e.raw for e in mine.elements) == sorted(
                e.raw for e in theirs.elements
            )
