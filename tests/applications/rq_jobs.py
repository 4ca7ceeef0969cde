"""The jobs of test_rq.py; its worker imports them too."""

import os

import redis


def add(one: int, other: int) -> int:
    return one + other


def note(word: str) -> None:
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.rpush("notes", word)


def second_time() -> str:
    """Fails once."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        if client.incr("tries") < 2:
            raise RuntimeError("on purpose")
    return "done"


def fails() -> None:
    raise RuntimeError("on purpose")
