"""limits: every strategy, with and without asyncio."""

import asyncio
from typing import Any

import limits
import pytest
from limits.aio import storage as aio_storage
from limits.aio import strategies as aio_strategies
from limits.storage import RedisStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

STRATEGIES = [
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_limits(url: str, strategy: type[RateLimiter]) -> None:
    storage = RedisStorage(url)
    limiter, ten = strategy(storage), limits.parse("10/hour")
    for user in ("one", "two", "three"):
        assert [limiter.hit(ten, "login", user) for _ in range(12)] == [True] * 10 + [False] * 2
        assert not limiter.test(ten, "login", user)
        assert limiter.get_window_stats(ten, "login", user).remaining == 0
    limiter.clear(ten, "login", "two")
    assert limiter.test(ten, "login", "two")
    assert not limiter.test(ten, "login", "one")
    storage.storage.set("other", "stays")
    assert storage.reset()  # its script lists the keys
    assert storage.storage.keys() == [b"other"]
    assert limiter.test(ten, "login", "one")


def test_limits_with_asyncio(url: str) -> None:
    async def run() -> None:
        storage = aio_storage.RedisStorage(f"async+{url}", implementation="redispy")
        limiter = aio_strategies.MovingWindowRateLimiter(storage)
        ten = limits.parse("10/hour")
        hits = await asyncio.gather(*(limiter.hit(ten, "login", "one") for _ in range(20)))
        assert sum(hits) == 10
        bridge: Any = storage.bridge
        await bridge.storage.aclose()  # it has no way of its own to close connections

    asyncio.run(asyncio.wait_for(run(), 30))
