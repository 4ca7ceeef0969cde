"""The actors of test_dramatiq.py; its worker imports them too."""

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

URL = os.environ.get("REDIS_URL", "redis://")
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
client = redis.Redis.from_url(URL)


@dramatiq.actor(store_results=True)
def add(one: int, other: int) -> int:
    return one + other


@dramatiq.actor(max_retries=3, min_backoff=10, max_backoff=20)
def third_time() -> None:
    """Fails twice."""
    if client.incr("tries") < 3:
        raise RuntimeError("on purpose")


@dramatiq.actor
def note(word: str) -> None:
    client.rpush("notes", word)
