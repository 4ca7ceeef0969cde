"""At maxmemory without eviction, what only frees or reads is done on every road."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

KEYS: Final = spread("f", each=1)  # on four instances
A, B, C, D = KEYS
FILL, VALUE = 300, b"x" * 20_000

CONSUMES: Final = [
    f"BLPOP {A}q 0", f"BLPOP {A}none {B}q 0", f"BRPOP {A}none {B}none 0.05", f"BLPOP {A}none 0.05",
    f"BLMPOP 0 2 {A}none {C}q LEFT COUNT 2", f"BZPOPMIN {A}none {B}z 0", f"BZPOPMAX {C}z 0.05",
    f"BZMPOP 0 2 {A}z {B}z MAX", f"BLMPOP x 1 {A} LEFT", f"BLPOP {A}z 0", f"LMPOP 2 {A}q {B}q LEFT",
    f"XREAD STREAMS {A}s {B}s 0 0", f"XREAD BLOCK 10 STREAMS {A}s {B}s $ $",
    # On one instance, and without the time to be served later
    f"BLPOP {{{A}}}none {{{A}}}q 0.001", f"BRPOP {{{A}}}none {{{A}}}q {{{A}}}more 0.001",
    f"BZPOPMIN {{{A}}}none {{{A}}}z 0.001", f"BZPOPMAX {{{A}}}none {{{A}}}z 0.001",
    f"XREAD COUNT 1 BLOCK 10 STREAMS {A}s {B}s 0 0", f"XREADGROUP GROUP g c STREAMS {A}s {B}s > >",
]  # fmt: skip
READS: Final = [
    f"unordered SUNION {A}u {B}u {C}u", f"unordered SINTER {A}u {B}u", f"SINTERCARD 2 {A}u {B}u",
    f"unordered SDIFF {A}u {B}u", f"ZUNION 2 {A}z {D}z WITHSCORES", f"ZINTER 2 {A}z {D}z",
    f"PFCOUNT {A}h {B}h", f"MGET {A} {B} {C}", f"LCS {A} {B}",
    f"EVAL_RO return(redis.call('get',KEYS[1])) 2 {A} {B}",
    f"EVAL return({{redis.call('get',KEYS[1]),redis.call('get',KEYS[2])}}) 2 {A} {B}",
    f"EVAL return(redis.call('get',ARGV[1])) 1 {A} {B}",
]  # fmt: skip
FREES: Final = [
    f"SMOVE {A}u {B}u only", f"RENAME {A} {B}new", f"RENAMENX {C} {D}", f"DEL {A}s {B}s {C}s",
    f"UNLINK {B}new {C} nosuch", f"EVAL return(redis.call('del',KEYS[1],KEYS[2])) 2 {D} {A}h",
    f"MOVE {B} 1",
]  # fmt: skip
NEEDS: Final = [
    f"INCR {A}n", f"MSET {A}n 1 {B}n 2", f"SINTERSTORE {A}d {B}u {C}u",
    f"LMOVE {D}q {A}q LEFT LEFT",
    f"MSETNX {A}n 1 {B}n 2", f"PFMERGE {C}h {B}h {D}h", f"BLMOVE {D}q {A}q LEFT LEFT 1",
    f"EVAL return(redis.call('incr',KEYS[1])) 1 {A}n", "MULTI", f"INCR {A}n", f"INCR {B}n", "EXEC",
    f"COPY {B} {C}new", f"LPUSH {D}q x", f"APPEND {B} x",
]  # fmt: skip


@contextlib.contextmanager
def without_memory(admin: Both, fill: int, *lines: str) -> Iterator[None]:
    """Two servers that have so many large values, and what these lines for each key make of it (its
    number is {0}, its name {1}); and no memory left.
    """
    admin.same_all([[b"SET", b"fill%d" % number, VALUE] for number in range(fill)])
    for number, key in enumerate(KEYS):
        for line in lines:
            admin.same_line(line.format(number, key))
    admin.same("SREM", f"{B}u", "only")
    try:
        admin.same("CONFIG", "SET", "maxmemory", "1mb")
        yield
    finally:
        admin.same("CONFIG", "SET", "maxmemory", "0")


@pytest.fixture(params=["known", "new"])
def full(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Both]:
    """Two servers that have no memory left; the proxy knows it, or will hear of it."""
    lines = (
        "SET {1} {0}", "RPUSH {1}q 1 2 3", "RPUSH {{{1}}}q 1 2 3", "ZADD {{{1}}}z 1 a 2.5 b 3 c",
        "ZADD {1}z 1 a 2.5 b {0} {1}", "SADD {1}u a b {1} only", "PFADD {1}h a {1}",
        "XADD {1}s 1-1 f v", "XGROUP CREATE {1}s g 0",
    )  # fmt: skip
    with pair.both() as admin:
        admin.same("FLUSHALL")
        with without_memory(admin, FILL, *lines):
            if request.param == "known":
                admin.same("APPEND", A, "x")
            yield admin
        admin.same("FLUSHALL")


def test_what_frees_or_reads_is_done(pair: Pair, full: Both, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in [*CONSUMES, *READS, *FREES]:
            both.same_line(line)
    for key in KEYS:
        full.same("EXISTS", *[f"{key}{end}" for end in ("", "q", "z", "u", "h", "s", "new")])
    full.same("DBSIZE")


def test_what_needs_memory_is_refused_before_anything(
    pair: Pair, full: Both, protocol: int
) -> None:
    with pair.both(protocol) as both:
        for line in NEEDS:
            both.same_line(f"shape {line}")
    for key in KEYS:
        full.same("EXISTS", *[f"{key}{end}" for end in ("n", "d", "new")])
        full.same("LRANGE", f"{key}q", 0, -1)
    full.same("DBSIZE")


GET, SET = "return redis.call('GET', KEYS[1])", "return redis.call('SET', KEYS[1], 'x')"
UNSEEN = "return redis.call('GET', ARGV[1])"
FUNCTIONS = """#!lua name=full
redis.register_function('sets', function(keys) return redis.call('SET', keys[1], 'x') end)
redis.register_function{function_name='gets', flags={'no-writes'}, callback=function(keys)
    return redis.call('GET', keys[1])
end}
redis.register_function{function_name='may', flags={'allow-oom'}, callback=function(keys)
    return redis.call('SET', keys[1], 'x')
end}
"""
FREEING: Final[dict[str, list[str]]] = {
    "nothing": [], "DEL": [f"DEL {C}"], "DEL of several": [f"DEL {A}q {B} {C}"],
    "LPOP": [f"LPOP {B}q"], "SET": [f"SET {C} x"], "GET": [f"GET {C}"],
    "nulls": [f"MGET {B} none", "HMGET none a b", f"ZMSCORE {B}z a none", f"DEL {C}"],
    "RENAME": [f"RENAME {C} {B}new"], "PUBLISH": ["PUBLISH c x", f"DEL {C}"],
}  # fmt: skip
SCRIPTS: Final[list[tuple[str, str, *tuple[str | int, ...]]]] = [
    ("EVAL", GET, 1, A), ("EVAL", SET, 1, A), ("EVAL_RO", GET, 1, D), ("EVAL", UNSEEN, 0, D),
    ("EVAL", "return redis.call('SET', ARGV[1], 'x')", 0, D), ("EVAL", GET + "..KEYS[2]", 2, A, B),
    ("EVAL", "redis.call('DEL', KEYS[2]) " + SET, 2, A, D), ("EVAL", "#!lua\n" + SET, 1, A),
    ("EVAL", "#!lua flags=no-writes\n" + GET, 1, A),
    ("EVAL", "#!lua flags=allow-oom\n" + SET, 1, A),
    ("EVALSHA", GET, 1, A), ("EVALSHA", SET, 1, A), ("EVALSHA", "#!lua\n" + SET, 1, A),
    ("EVALSHA_RO", "#!lua flags=no-writes\n" + GET, 1, D), ("FCALL", "sets", 1, A),
    ("FCALL", "gets", 1, A), ("FCALL", "may", 1, A), ("FCALL_RO", "gets", 1, D), ("FCALL", "no", 0),
]  # fmt: skip


@pytest.mark.sample
@pytest.mark.parametrize("others", FREEING)
def test_scripts_beside_other_commands(pair: Pair, full: Both, protocol: int, others: str) -> None:
    """A script that may not write says so by itself; the others are done."""
    with pair.both(protocol) as both:
        both.same("FUNCTION", "LOAD", "REPLACE", FUNCTIONS)
        for name, script, *rest in SCRIPTS:
            if name.startswith("EVALSHA"):
                both.same("SCRIPT", "LOAD", script)
                script = hashlib.sha1(script.encode()).hexdigest()
            words = (name, script, *rest)
            both.same("MULTI")
            both.same(*words)
            for line in FREEING[others]:
                both.same_line(line)
            both.same(*words)
            both.same("EXEC")
            both.same("SELECT", 0)
        both.same("MGET", *KEYS, f"{B}new")
        both.same("FUNCTION", "FLUSH")
        both.same("SCRIPT", "FLUSH")


@pytest.mark.sample
@pytest.mark.parametrize(
    "line",
    ["WATCH a", "MULTI", "AUTH x", "AUTH default x", "HELLO 9", "HELLO 3 AUTH no x", "UNWATCH",
     "PING", "DISCARD", "RESET", "EXEC", "SELECT 1"],
)  # fmt: skip
def test_what_is_taken_in_a_transaction_without_memory(pair: Pair, full: Both, line: str) -> None:
    """Redis takes nothing but its end."""
    full.same("DEL", KEYS[1])
    with pair.both() as both:
        both.same("MULTI")
        both.same_line(line)
        both.same("GET", KEYS[0])
        both.same("EXEC")


TIMES: Final = [
    *(f"BLPOP {A}q {time}" for time in ["-1", "x", "1_0", "nan", "-0x1", "0x1", "1e-9"]),
    f"BRPOP {A}q {B}q -1", f"BZPOPMIN {A}z x", f"BZPOPMAX {A}z {B}z -2", f"BRPOPLPUSH {A}q {B}q x",
    f"BLMOVE {A}q {B}q LEFT LEFT -1", f"BLMOVE {A}q {B}q UP LEFT -1", f"BLMPOP -1 1 {A}q LEFT",
    f"BLMPOP 1 1 {A}q LEFT", f"BZMPOP x 1 {A}z MIN", f"XREAD BLOCK -1 STREAMS {A}s 0",
    f"XREAD BLOCK 1.5 STREAMS {A}s 0", f"XREAD BLOCK x y STREAMS {A}s 0", f"XREAD BLOCK 1 y {A}s 0",
    f"XREADGROUP GROUP g c BLOCK -1 STREAMS {A}s >",
]  # fmt: skip


@pytest.mark.sample
@pytest.mark.parametrize("line", TIMES)
def test_wrong_times_to_wait(pair: Pair, full: Both, protocol: int, line: str) -> None:
    """The time is judged before anything else, if it stands before it."""
    with pair.both(protocol) as both:
        both.same_line(line)
        both.same_line(line.replace(f"{A}q", f"{A}none"))
    full.same("EXISTS", *(key + kind for key in KEYS for kind in ("", "q", "z", "s")))


@pytest.mark.sample
@pytest.mark.parametrize(
    "line",
    [*TIMES, *(one for one in CONSUMES if " x " not in one), f"BLMOVE {A}q {B}q LEFT LEFT 0",
     f"BRPOPLPUSH {A}q {{{A}}}q 0", f"XREADGROUP GROUP g c BLOCK 0 STREAMS {A}s >",
     f"BZMPOP 0 2 {B}none {A}z MIN COUNT 2"],
)  # fmt: skip
def test_what_was_queued_while_there_was_memory(
    pair: Pair, full: Both, protocol: int, line: str
) -> None:
    """What waits elsewhere is done at once between MULTI and EXEC."""
    full.same("CONFIG", "SET", "maxmemory", 0)
    with pair.both(protocol) as both:
        both.same("MULTI")
        both.same_line(line)
        both.same("DEL", D)
        full.same("CONFIG", "SET", "maxmemory", "1mb")
        both.same("EXEC")
    full.same("EXISTS", *(key + kind for key in KEYS for kind in ("", "q", "z", "s")))
