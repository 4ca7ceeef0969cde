"""Scripts that are tried where their keys are: when they need others, all they did is put back."""

import random
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.test_pubsub import read_same, same_count

A, B, C, D = spread("v", each=1)
TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
LARGE: Final = (300, 900)  # a hash is put back by its fields above 512
# Any of these on any key: some fail, and are caught.
STEPS: Final = {
    "string": [
        "'SET', k, 'x'", "'INCR', k", "'APPEND', k, 'y'", "'GETDEL', k", "'SETEX', k, 99, 1",
    ],
    "list": [
        "'LPUSH', k, 'a', 'b'", "'RPUSH', k, 'c'", "'LPOP', k", "'RPOP', k", "'LREM', k, 1, 5",
        "'LPOP', k, 2", "'LTRIM', k, 1, -2", "'RPOPLPUSH', k, k", "'LSET', k, 0, 'z'",
    ],
    "set": ["'SADD', k, 'a', 'b', 'a'", "'SREM', k, 3, 'none', 4", "'SMOVE', k, k, 5"],
    "zset": [
        "'ZADD', k, 1.5, 'a', 2, 'b', 3, 'a'", "'ZREM', k, 7, 'none'", "'ZADD', k, 'NX', 1, 'q'",
        "'ZINCRBY', k, 0.1, 8", "'ZREMRANGEBYRANK', k, 0, 3", "'ZPOPMIN', k",
    ],
    "hash": [
        "'HSET', k, 'a', 1, 3, 'x', 'a', 2", "'HDEL', k, 4, 'none', 4, 5", "'HINCRBY', k, 'n', 1",
        "'HSETNX', k, 6, 'y'", "'HMSET', k, 7, 'y'", "'HINCRBYFLOAT', k, 8, 0.5", "'HSET', k, 1",
    ],
    "stream": ["'XADD', k, '*', 'f', 'v'", "'XTRIM', k, 'MAXLEN', 3", "'XDEL', k, '5-1'"],
}  # fmt: skip
ALWAYS: Final = [
    "'EXPIRE', k, 1000", "'PERSIST', k", "'DEL', k", "'EXPIRE', k, 0", "'PEXPIREAT', k, 1",
    "'RENAME', k, k .. ':2'", "'UNLINK', k",
]  # fmt: skip


def fill(both: Both, kind: str, key: str, count: int) -> None:
    values = {
        "string": ["SET", key, 5],
        "list": ["RPUSH", key, *range(count)],
        "set": ["SADD", key, *range(count)],
        "zset": ["ZADD", key, *(number for n in range(count) for number in (n, n))],
        "hash": ["HSET", key, *(number for n in range(count) for number in (n, n))],
    }
    if kind in values:
        both.same(*values[kind])
        return
    for number in range(1, count // 10):
        both.same("XADD", key, f"{number}-1", "f", number)


def look(both: Both, kind: str, key: str) -> None:
    """All that a key is."""
    readers: dict[str, list[str | int]] = {
        "string": ["GET", key], "list": ["LRANGE", key, 0, -1], "set": ["SMEMBERS", key],
        "zset": ["ZRANGE", key, 0, -1, "WITHSCORES"], "hash": ["HGETALL", key],
        "stream": ["XRANGE", key, "-", "5-9"],
    }  # fmt: skip
    both.same("TYPE", key)
    if both.bare.ask("TYPE", key).text == kind.encode():
        reader = readers[kind]
        both.same(*reader, how="unordered" if kind in ("set", "hash") else None)
        if kind == "stream":
            both.same("XLEN", key)
    assert abs(both.ours.ask("TTL", key).number - both.bare.ask("TTL", key).number) <= 50


@pytest.mark.sample
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("count", [20, *LARGE])
def test_all_is_put_back(pair: Pair, kind: str, count: int) -> None:
    chance = random.Random(f"{kind} {count}")  # the same each time
    with pair.both() as both:
        for number in range(12):
            key = f"{{{A}}}{number}"
            fill(both, kind, key, count)
            if number % 3 == 0:
                both.same("EXPIRE", key, 5000)
            steps = [chance.choice(STEPS[kind] + ALWAYS[:2]) for _ in range(3)]
            steps += [chance.choice(STEPS[kind] + ALWAYS) for _ in range(3)]
            script = "local k = ({KEYS[1]})[1] " + "".join(f"redis.pcall({one}) " for one in steps)
            # In the middle it touches a key that may live elsewhere.
            script += f"redis.call('INCR', '{B}:' .. {number}) return redis.call('EXISTS', k)"
            both.same("EVAL", script, 1, key)
            look(both, kind, key)
            look(both, kind, key + ":2")
            both.same("GET", f"{B}:{number}")
            both.same("DEL", key, key + ":2")


def test_errors_and_replies_are_those_of_the_script(pair: Pair) -> None:
    with pair.both() as both:
        both.same("SET", "{q}s", "text")
        for body in (
            "return {k, ARGV[1], #KEYS}",
            "redis.call('SET', k, 1)\nredis.call('LPUSH', k, 1)\nreturn 1",
            "redis.call('SET', k, 1)\nlocal x = nil\nreturn x.y",
            "redis.call('SET', k, 1)\nerror('mine')",
            "redis.call('SET', k, 1)\nerror({err='MINE of a table'})",
            "redis.call('SET', k, 1) return redis.pcall('LPUSH', k, 1)",
            "redis.call('SET', k, 1) return redis.error_reply('OOM made here')",
            "redis.call('SET', k, 1) return {err='NOSCRIPT made here'}",
            "redis.call('INCRBY', k, 12345678901234) return redis.call('INCRBY', k, 1)",
            "redis.call('ZADD', k, 0.1, 'm') return redis.call('ZSCORE', k, 'm')",
            "redis.call('HSET', k, 1, 2.5) return redis.call('HGETALL', k)",
            "redis.call('nosuch', k)",
            "redis.call()",
            "redis.call('SET', k, {})",
            "return redis.call('GET', KEYS[1]):len()",
            "return redis.sha1hex('x') .. type(redis.call)",
            "local ok, e = pcall(redis.call, 'LPUSH', k, 1) return tostring(ok)",
            "local rcall = redis.call rcall('SET', k, 1) return rcall('GET', k)",
            "redis.log(redis.LOG_DEBUG, 'x') return redis.status_reply('FINE')",
            "return redis.nosuch",
            "_G.x = 1",
            "return redis.call('PUBLISH', 'c', 'm')",
            "redis.call('SET', k, 1)\nredis.call('PUBLISH', 'c', 'm')\nerror('mine')",
            "redis.call('publish', 'c', 'm') return {k, ...}",
            "redis.call('PUBLISH', 'c') return 1",
            "redis.call('PUBLISH', 'c', 2.5) -- a word\nreturn redis.call('INCR', k) -- end",
            "local n = redis.call('PUBLISH', 'c', 'm') return n",
            "return redis.call('MEMORY', 'USAGE', KEYS[1]) > 0",
            "redis.call('SET', k, 1) return redis.call('OBJECT', 'ENCODING', k)",
        ):
            script = "local k = ARGV[1] .. 'n'\n" + body
            for _ in range(2):
                both.same("EVAL", script, 1, "{q}s", "{q}")
                both.same("TYPE", "{q}n")
            both.same("DEL", "{q}n")


@pytest.mark.parametrize("then", ["", "error({err='MINE here'})", "redis.call('LPUSH', k, 1)"])
@pytest.mark.parametrize("caught", ["'INCR', o", "'GET', o", "'EXISTS', k, o", "'RENAME', k, o"])
def test_what_is_caught_is_no_answer_for_a_refusal(pair: Pair, caught: str, then: str) -> None:
    """The script would go on, as if the key had been refused to its user."""
    script = (
        "local k, o = ({KEYS[1]})[1], ARGV[1] redis.call('INCR', k) "
        f"local got = redis.pcall({caught}) {then} return {{type(got), redis.call('EXISTS', k)}}"
    )
    with pair.both() as both:
        for other in (A, B, C):
            for keys in ([A], [A, D]):
                both.same("EVAL", script, len(keys), *keys, other)
                both.same("MGET", A, B, C)


def test_who_listens_hears_nothing_of_what_is_put_back(pair: Pair) -> None:
    script = "redis.call('SET', ARGV[1], 1) return redis.call('INCR', KEYS[1])"
    with pair.both() as both, pair.both() as listening:
        both.same("CONFIG", "SET", "notify-keyspace-events", "EA")
        listening.same("PSUBSCRIBE", "__keyevent@0__:*")
        for target in (C, B, A):
            both.same("EVAL", script, 1, A, target)
        both.same("CONFIG", "SET", "notify-keyspace-events", "")
        both.same("SET", "last", 1)
        both.same("MGET", A, B, C)


def test_what_begins_with_a_parenthesis(pair: Pair) -> None:
    script = "(function(k) redis.call('SET', k, 1) end)(ARGV[1]) return redis.call('GET', ARGV[1])"
    with pair.both() as both:
        both.same("EVAL", script, 1, "{q}s", "{q}n")
        both.same("GET", "{q}n")


@pytest.mark.parametrize("begin", ["", "redis.setresp(3) "])
def test_scores_are_put_back(pair: Pair, begin: str) -> None:
    script = f"{begin}local k = ({{KEYS[1]}})[1] local was = redis.call('ZSCORE', k, 7)"
    script += "redis.call('ZADD', k, 900, 7) redis.call('INCR', ARGV[1])"
    script += "return tostring(type(was) == 'table' and was.double or was)"
    with pair.both() as both:
        fill(both, "zset", A, 300)
        for target in (B, C):
            both.same("EVAL", script, 1, A, target)
            both.same("ZADD", A, 7, 7)


def test_times_of_fields_are_put_back(pair: Pair) -> None:
    with pair.both() as both:
        if both.bare.ask("HPEXPIRETIME", A, "FIELDS", 1, 1).kind == "*":
            fill(both, "hash", A, 900)
            both.same("HPEXPIREAT", A, 9_999_999_999_999, "FIELDS", 1, 7)
            script = (
                "redis.call('HSET', ({KEYS[1]})[1], 7, 'x') redis.call('INCR', ARGV[1]) error('no')"
            )
            for target in (B, C):
                both.same("SET", target, "text")
                both.same("EVAL", script, 1, A, target)
                both.same("HPEXPIRETIME", A, "FIELDS", 2, 7, 8)
                both.same("HGET", A, 7)


@pytest.mark.parametrize("others", [[], ["1700000000000", B, C]])
def test_a_message_is_told_once(pair: Pair, others: list[str]) -> None:
    script = "redis.call('PUBLISH', 'c', ARGV[1]) return redis.call('INCR', '{q}' .. ARGV[1])"
    keys = ["{q}s", *others]  # those that live elsewhere are not touched
    with pair.both() as both, pair.both() as listening:
        same_count(listening, 1, "SUBSCRIBE", "c")
        for number in range(5):
            both.same("EVAL", script, len(keys), *keys, number)
            read_same(listening)
        both.same("PUBLISH", "c", "end")
        read_same(listening)


def test_keys_of_several_instances(pair: Pair) -> None:
    script = (
        "redis.call('ZADD', KEYS[1], KEYS[2], 'm') redis.call('ZREM', KEYS[1], 7) "
        "local k = ARGV[1] "
        "if k ~= '' then redis.call('INCR', k) end return redis.call('ZRANGE', KEYS[1], 0, 8)"
    )
    with pair.both() as both:
        fill(both, "zset", A, 300)
        for number, target in enumerate(["", "", "", B, C, "new", A, ""]):
            both.same("EVAL", script, 3, A, f"170000000000{number}", B, target)
            both.same("ZRANGE", A, 0, -1, "WITHSCORES")
            both.same("ZADD", A, 7, 7)
        both.same("MGET", B, C, "new")


def test_nothing_is_told_of_what_is_put_back(pair: Pair) -> None:
    script = "redis.call('PUBLISH', 'c', 'm') redis.call('SET', '{q}n', 1) error('mine')"
    with pair.both() as both, pair.both() as listening:
        same_count(listening, 1, "SUBSCRIBE", "c")
        both.same("EVAL", script, 1, "{q}s")
        read_same(listening)
        both.same("GET", "{q}n")


@pytest.mark.parametrize("name", ["{q}n", A])
def test_without_keys_it_is_tried_where_it_was_before(pair: Pair, name: str) -> None:
    """So one sees that it has written, whatever: what copies leave as it was is no change."""
    tagged = f"{{{name.strip('{}n')}}}2"
    script = (  # nothing is known of it yet
        f"-- {name}\n"
        "redis.call('SET', ARGV[1], 'v') local also = redis.call('INCR', ARGV[2]) "
        "if ARGV[3] == 'fail' then error('mine') end return {#KEYS, #ARGV, also}"
    )
    with pair.both() as both, pair.both() as watching:
        for _ in range(3):
            both.same("EVAL", script, 0, name, tagged)
        watching.same("WATCH", name)
        both.same("EVAL", script, 0, name, tagged)
        watching.same("MULTI")
        watching.same("PING")
        watching.same("EXEC")
        for other in (B, C, D, A):  # elsewhere: it is put back, and done on copies
            both.same("EVAL", script, 0, name, other)
            both.same("EVAL", script, 0, name, other, "fail")
            both.same("MGET", name, other)
        for number in range(20):  # never the same: no more are tried
            both.same("EVAL", script, 0, f"{{{number}}}", f"{{{number + 1}}}x")
        both.same("EVAL", script, 0, name, "list")
        both.same("RPUSH", "list", 1)
        both.same("MGET", *(f"{{{number}}}" for number in range(20)))


SORT = "redis.call('SORT', KEYS[1], 'BY', 'nosort', 'ASC')"


def test_what_a_script_left_alone_is_not_touched(pair: Pair) -> None:
    """For who has it in WATCH; wherever the other key lives that the script looks for."""
    for set_up, code in (
        (("ZADD", A, 3, "x"), "redis.call('RPUSH', KEYS[1], 'x')"),
        (("SADD", A, 1), "redis.call('SREM', KEYS[1], 'x')"),
        (("SET", A, 1), "redis.call('SETNX', KEYS[1], 'x')"),
        (("SADD", A, *range(300)), "redis.call('SREM', KEYS[1], 'x')"),
        (("ZADD", A, *(n for at in range(300) for n in (at, at))), "redis.pcall('GET', KEYS[1])"),
        # These change its encoding.
        (("ZADD", A, 3, "x", 1, 7), "redis.call('SORT', KEYS[1], 'BY', 'nosort')"),
        (("ZADD", A, 3, "x"), f"redis.call('ZADD', KEYS[1], 'NX', 4, 'x') {SORT} {SORT}"),
        (("HSET", A, "f", 1), "redis.call('HSETNX', KEYS[1], 'f', string.rep('x', 100))"),
    ):
        with pair.both() as both, pair.both() as watching:
            for other in (A, B, C):
                for time in (0, 1000):
                    both.same("DEL", A)
                    both.same(*set_up)
                    if time:
                        both.same("EXPIRE", A, time)
                    watching.same("WATCH", A)
                    script = f"{code} redis.pcall('STRLEN', ARGV[1]) return 7"
                    both.same("EVAL", script, 1, A, other)
                    watching.same("MULTI")
                    watching.same("EXISTS", A)
                    watching.same("EXEC")
