"""channels_redis: groups and channels, over lists and scripts and over pub/sub."""

import asyncio
from typing import Any

import pytest
import redis
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from waiting import until_async

MEMBERS = 10


@pytest.mark.parametrize("kind", ["core", "pubsub"])
def test_channels_redis(url: str, client: "redis.Redis", kind: str) -> None:
    make = RedisChannelLayer if kind == "core" else RedisPubSubChannelLayer
    asyncio.run(asyncio.wait_for(_chat(make(hosts=[url]), client), 30))


async def _chat(layer: Any, client: "redis.Redis") -> None:
    is_pubsub = isinstance(layer, RedisPubSubChannelLayer)
    names = [await layer.new_channel() for _ in range(MEMBERS)]
    for name in names:
        await layer.group_add("room", name)
    if is_pubsub:  # it does not wait until the server has confirmed what it subscribes to
        await until_async(
            lambda: len(client.pubsub_channels()) == MEMBERS + 1, "everything is subscribed"
        )
    await layer.group_send("room", {"type": "chat", "text": "to all"})
    heard = await asyncio.gather(*map(layer.receive, names))
    assert [message["text"] for message in heard] == ["to all"] * MEMBERS
    await layer.group_discard("room", names[0])
    await layer.group_send("room", {"type": "chat", "text": "to nine"})
    heard = await asyncio.gather(*map(layer.receive, names[1:]))
    assert {message["text"] for message in heard} == {"to nine"}
    await layer.send(names[0], {"type": "chat", "text": "to one"})
    assert (await layer.receive(names[0]))["text"] == "to one"
    await layer.flush()
    if not is_pubsub:
        assert client.keys() == []
        await layer.close_pools()
