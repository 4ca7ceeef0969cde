"""Scripts that workers run by themselves, for tests: teach one, count their runs."""

from collections.abc import Callable

import redis

from conftest import Threadis
from raw import Raw

# Keeps to its keys, unless it is told of another: nobody can know.
STRAY = "if ARGV[1] then redis.call('SET', ARGV[1], 1) end return redis.call('INCR', KEYS[1])"


def raw(running: Threadis) -> Raw:
    return Raw(("127.0.0.1", running.port))


def ask(client: redis.Redis, *words: bytes | str | int) -> object:
    call: Callable[..., object] = client.execute_command
    return call(*words)


def run_here(client: redis.Redis) -> int:
    """How many scripts the workers have run by themselves."""
    return int(client.info("threadis")["threadis_lane_scripts"])


def learn(client: redis.Redis, script: str, *keys: bytes) -> str:
    """A script that workers run; its SHA1."""
    sha = str(client.script_load(script))
    for _ in range(2):  # by the coordinator, then by a worker
        before = run_here(client)
        client.evalsha(sha, len(keys), *keys)
    assert run_here(client) == before + 1
    return sha


def busy(client: redis.Redis, *words: bytes | str | int) -> bool:
    try:
        ask(client, *words)
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False
