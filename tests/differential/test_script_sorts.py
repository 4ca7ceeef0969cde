"""SORT with BY and GET inside scripts: it looks at keys that only the elements name, wherever these
live.
"""

import pytest

from differential.pair import Pair
from waiting import until

pytestmark = pytest.mark.sample

USERS = {
    "everybody": None,
    "of all keys": "~* +@all",
    "that reads all": "%R~* ~dst +@all",
    "of some keys": "~l ~dst ~w_* +@all",  # servers want the right to read all
    "that may not sort": "~* +@all -sort -sort_ro",
}
SCRIPTS = [
    "return redis.pcall('SORT', 'l', 'BY', 'w_*')",
    "return redis.pcall('SORT', 'l', 'GET', '#')",
    "return redis.call('SORT', 'l', 'BY', 'nosort', 'GET', 'd_*', 'GET', '#', 'GET', 'h_*->f')",
    "return redis.pcall('SORT', ARGV[1] or 'l', 'BY', 'w_*', 'GET', 'd_*', 'LIMIT', 0, 2)",
    "return redis.call('sort_ro', 'l', 'by', 'w_*', 'desc')",
    "return redis.call('SORT', 'l', 'BY', 'w_*', 'GET', 'd_*', 'STORE', 'dst')",
    "redis.call('SET', 'd_1', 'new') return redis.call('SORT', 'l', 'BY', 'w_*', 'GET', 'd_*')",
    "return {redis.pcall('SORT', 'l', 'BY', 'w_*'), redis.pcall('SORT', 'm', 'GET', 'd_*')}",
    "return redis.call('SORT', 'nothing', 'GET', 'd_*')",
    "return redis.pcall('SORT', 'd_1', 'BY', 'w_*')",
    "redis.call('SORT', 'l', 'GET', 'd_*', 'STORE', 'dst') return redis.call('LLEN', 'dst')",
]


def fill(pair: Pair) -> None:
    with pair.both() as client:
        client.same("DEL", "dst")
        client.same("DEL", "l")
        client.same("RPUSH", "l", 3, 1, 2)
        client.same("DEL", "m")
        client.same("SADD", "m", 1)
        for number, weight in ((1, 20), (2, 10), (3, 30)):
            client.same("SET", f"w_{number}", weight)
            client.same("SET", f"d_{number}", f"data of {number}")
            client.same("HSET", f"h_{number}", "f", f"field of {number}")


@pytest.mark.parametrize("keys", [(), ("l",), ("l", "dst")], ids=str)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_it_sorts_as_on_one_server(
    pair: Pair, script: str, user: str, keys: tuple[str, ...]
) -> None:
    rules = USERS[user]
    with pair.both() as client, pair.both() as admin:
        if rules:
            admin.same("ACL", "SETUSER", "eve", "reset", "on", ">pw", *rules.split())
            client.same("AUTH", "eve", "pw")
        fill(pair)
        for _ in "12":  # the second time it is known what the script needs
            client.same("EVAL", script, len(keys), *keys)
        client.same("MULTI")
        client.same("EVAL", script, len(keys), *keys)
        client.same("EXEC")
        client.same("MULTI")
        client.same("SET", "w_4", 5)
        client.same("RPUSH", "l", 4)
        client.same("EVAL", script, len(keys), *keys)
        client.same("LREM", "l", 0, 4)
        client.same("DEL", "w_4")
        client.same("EXEC")
        client.same("EVAL_RO", script, len(keys), *keys)
        admin.same("LRANGE", "dst", 0, -1)
        admin.same("GET", "d_1")
        if rules:
            admin.same("ACL", "DELUSER", "eve")


@pytest.mark.parametrize(
    "script",
    [
        "redis.call('RPUSH', 'l', 4) return redis.call('SORT', 'l', 'BY', 'w_*')",
        "redis.call('SORT', 'l', 'STORE', 'dst') return redis.call('SORT', 'dst', 'BY', 'w_*')",
    ],
)
def test_what_the_script_has_changed_before_is_not_sorted_by_others(
    pair: Pair, script: str
) -> None:
    fill(pair)
    ours = pair.ours()
    assert ours.ask("EVAL", script, 1, "l").raw.startswith(
        b"-ERR threadis: SORT with BY or GET inside a script that has changed what it sorts "
    )
    assert ours.ask("LLEN", "l").number == 3
    until(lambda: ours.ask("GET", "d_1").text == b"data of 1", "nothing is locked")
    ours.close()


@pytest.mark.parametrize(
    "script",
    [
        "redis.call('SET', KEYS[2], 'x') return redis.call('SORT', KEYS[1], ARGV[1], ARGV[2])",
        "redis.call('SET', KEYS[2], 'x') return redis.call('SORT', KEYS[1], unpack(ARGV))",
        "redis.call('SET', KEYS[2], 'x') return redis.call(ARGV[3] or 'sort', KEYS[1], 'BY', 'w*')",
        "return redis.pcall('sort_ro', KEYS[1], ARGV[1], ARGV[2])",
    ],
)
@pytest.mark.parametrize("words", [("BY", "w_*"), ("get", "d_*"), ("BY", "w_*", "SORT")], ids=str)
def test_words_may_come_from_the_caller(pair: Pair, script: str, words: tuple[str, ...]) -> None:
    with pair.both() as client:
        fill(pair)
        for keys in (("l", "dst"), ("l", "w_1")):
            client.same("EVAL", script, 2, *keys, *words)
            client.same("MULTI")
            client.same("SET", "d_2", "other")
            client.same("EVAL", script, 2, *keys, *words)
            client.same("EXEC")
            client.same("GET", keys[1])
