"""redis-py: pipelines, locks, scripts, streams, pub/sub and scans, with and without asyncio."""

import asyncio
import threading

import pytest
import redis
import redis.asyncio


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(url: str, protocol: int) -> None:
    with redis.Redis.from_url(url, decode_responses=True, protocol=protocol) as client:
        pipe = client.pipeline()
        for n in range(100):
            pipe.set(f"key:{n}", n)
        assert pipe.execute() == [True] * 100
        assert len(list(client.scan_iter("key:*", count=7))) == 100
        with client.pipeline() as watching:
            watching.watch("key:1", "key:2")
            watching.multi()
            watching.incr("key:1")
            assert watching.execute() == [2]
        with client.lock("mine", timeout=5):
            assert not client.lock("mine").acquire(blocking=False)
        move = client.register_script("redis.call('SET', KEYS[2], redis.call('GET', KEYS[1]))")
        move(["key:7", "other"])
        assert client.get("other") == "7"
        client.xgroup_create("events", "workers", mkstream=True)
        entry = client.xadd("events", {"a": 1})
        assert client.xreadgroup("workers", "one", {"events": ">"}, count=1)
        assert client.xack("events", "workers", entry) == 1
        with client.pubsub() as pubsub:
            pubsub.subscribe("news")
            assert pubsub.get_message(timeout=5)
            client.publish("news", "hello")
            message = pubsub.get_message(timeout=5)
            assert message
            assert message["data"] == "hello"
        push = threading.Thread(target=client.lpush, args=("queue:2", "x"))
        push.start()
        assert client.blpop(["queue:1", "queue:2"], 10) in (("queue:2", "x"), ["queue:2", "x"])
        push.join()


def test_redis_py_with_asyncio(url: str) -> None:
    async def run() -> None:
        async with redis.asyncio.from_url(url, decode_responses=True) as client:
            await asyncio.gather(*(client.set(f"key:{n}", n) for n in range(50)))
            assert await client.mget("key:3", "key:4") == ["3", "4"]

            async def add() -> None:
                async with client.lock("mine", timeout=5, sleep=0.01):
                    await client.set("sum", int(await client.get("sum") or 0) + 1)

            await asyncio.gather(*(add() for _ in range(10)))
            assert await client.get("sum") == "10"

    asyncio.run(asyncio.wait_for(run(), 30))
