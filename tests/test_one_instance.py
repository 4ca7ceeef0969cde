"""One instance has all keys, but our databases are there, too: no script gets into them."""

from collections.abc import Callable

import pytest
import redis

from conftest import Threadis

HIDDEN = range(16, 18)
REFUSED = "nothing was run"


@pytest.mark.parametrize("db", HIDDEN)
@pytest.mark.parametrize(
    "script",
    [
        "redis.call('SET', KEYS[1], 'y') redis.call('SELECT', {}) return redis.call('KEYS', '*')",
        "redis.call('SET', KEYS[1], 'y') redis.call('SELECT', ARGV[1]) redis.call('SET', 'a', 1)",
        "redis.call('SET', KEYS[1], 'y') return redis.call('MOVE', KEYS[1], {})",
        "redis.call('SET', KEYS[1], 'y') return redis.call('COPY', KEYS[1], 'b', 'DB', {})",
        "redis.call('SET', KEYS[1], 'y') return redis.call('COPY', KEYS[1], 'b', unpack(ARGV, 2))",
    ],
)
def test_what_is_ours(threadis: Callable[..., Threadis], script: str, db: int) -> None:
    with threadis("--instances", "1").client() as client:
        client.set("a", "x")
        for pipeline in (False, True):
            with pytest.raises(redis.ResponseError, match=REFUSED):
                if pipeline:
                    with client.pipeline() as pipe:
                        pipe.eval(script.format(db), 1, "a", db, "DB", db)
                        pipe.execute()
                else:
                    client.eval(script.format(db), 1, "a", db, "DB", db)
        assert client.get("a") == b"x"
        assert client.keys("*") == [b"a"]


def test_what_is_the_clients(threadis: Callable[..., Threadis]) -> None:
    with threadis("--instances", "1").client() as client:
        client.set("a", "x")
        assert client.eval("return redis.call('COPY', KEYS[1], KEYS[2])", 2, "a", "b") == 1
        copy = "return redis.call('COPY', KEYS[1], KEYS[2], 'replace')"
        assert client.eval(copy, 2, "a", "b") == 1
        select = "redis.call('SELECT', 5) return redis.call('SET', KEYS[1], 'there')"
        assert client.eval(select, 1, "a") == b"OK"
        assert client.get("a") == b"x"
        with threadis_in(client, 5) as there:
            assert there.get("a") == b"there"


def threadis_in(client: redis.Redis, db: int) -> redis.Redis:
    return redis.Redis(port=client.get_connection_kwargs()["port"], db=db)
