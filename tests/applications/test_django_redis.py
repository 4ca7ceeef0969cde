"""django-redis: the cache, its locks, counters, patterns and sessions."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django_redis import get_redis_connection


@pytest.fixture
def cache(url: str) -> Iterator[BaseCache]:
    options = {"CLIENT_CLASS": "django_redis.client.DefaultClient"}
    entry = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{url}/1", "OPTIONS": options}
    if not settings.configured:
        settings.configure(SESSION_ENGINE="django.contrib.sessions.backends.cache")
    settings.CACHES = {"default": entry}
    caches.settings = caches.configure_settings(None)
    yield caches.create_connection("default")
    get_redis_connection("default").connection_pool.disconnect()


def test_django_redis(cache: BaseCache) -> None:
    cache.set_many({f"page:{n}": {"n": n} for n in range(50)}, timeout=60)
    assert cache.get_many(["page:1", "page:2", "page:x"]) == {
        "page:1": {"n": 1},
        "page:2": {"n": 2},
    }
    assert 0 < cache.ttl("page:7") <= 60
    assert cache.add("once", 1)
    assert not cache.add("once", 2)
    cache.set("count", 5)
    assert (cache.incr("count", 2), cache.decr("count")) == (7, 6)
    assert cache.get_or_set("made", lambda: "so", 60) == "so"
    assert sorted(cache.keys("page:1*")) == sorted(["page:1", *(f"page:1{n}" for n in range(10))])
    assert len(list(cache.iter_keys("page:*", itersize=7))) == 50
    assert cache.delete_pattern("page:*") == 50
    assert cache.get("page:1") is None
    with cache.lock("mine", timeout=5):
        assert not cache.lock("mine").acquire(blocking=False)
    assert cache.touch("once", 100)
    assert cache.persist("once")
    assert cache.ttl("once") is None
    assert cache.delete_many(["once", "count"]) == 2
    cache.clear()
    assert cache.keys("*") == []
