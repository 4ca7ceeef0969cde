"""One instance has all keys, but our databases are there, too: no script gets into them."""

from collections.abc import Callable

import pytest
import redis

from conftest import Threadis
from threadis.supervisor.server import ServerBinary

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


@pytest.mark.parametrize("flags", ["--instances 1", "--instances 3 --pin-database 0=1"])
@pytest.mark.parametrize("keys", [["l"], []], ids=["declared", "undeclared"])
@pytest.mark.parametrize("writes_before", ["", "redis.call('SET', 'l2', 1)"])
def test_sort_by_other_keys(
    threadis: Callable[..., Threadis],
    stock_server: ServerBinary,
    flags: str,
    keys: list[str],
    writes_before: str,
) -> None:
    running = threadis("--server", str(stock_server.path), *flags.split())
    with running.client() as client:
        client.rpush("l", "2", "1")
        client.mset({"w_1": "2", "w_2": "1"})
        for command, expected in (
            ("'SORT', 'l', 'BY', 'w_*'", [b"2", b"1"]),
            ("'SORT_RO', 'l', 'BY', 'w_*'", [b"2", b"1"]),
            ("'SORT', 'l', 'GET', 'w_*', 'GET', '#'", [b"2", b"1", b"1", b"2"]),
            ("'SORT', 'l', 'BY', 'w_*', 'STORE', 'sorted'", 2),
        ):
            script = f"{writes_before} return redis.call({command})"
            assert client.eval(script, len(keys), *keys) == expected
            with client.pipeline() as pipe:
                pipe.set("beside", "1").eval(script, len(keys), *keys)
                assert pipe.execute() == [True, expected]
        assert client.lrange("sorted", 0, -1) == [b"2", b"1"]
        client.execute_command("ACL", "SETUSER", "few", "on", "nopass", "~l*", "+@all")
        with threadis_as(client, "few") as few, pytest.raises(redis.ResponseError, match="denied"):
            few.eval("return redis.call('SORT', 'l', 'BY', 'w_*')", len(keys), *keys)


def threadis_as(client: redis.Redis, user: str) -> redis.Redis:
    port = client.get_connection_kwargs()["port"]
    return redis.Redis(port=port, username=user, password="any")


def threadis_in(client: redis.Redis, db: int) -> redis.Redis:
    return redis.Redis(port=client.get_connection_kwargs()["port"], db=db)
