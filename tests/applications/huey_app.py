"""The tasks of test_huey.py; its consumer imports them too."""

import os

from huey import PriorityRedisHuey, RedisHuey, crontab

URL = os.environ.get("REDIS_URL", "redis://")
huey = RedisHuey("plain", url=URL)
urgent = PriorityRedisHuey("urgent", url=URL)


@huey.task()
def add(one: int, other: int) -> int:
    return one + other


@huey.task(retries=2, retry_delay=0)
def third_time() -> int:
    """Fails twice."""
    tries = int(huey.storage.conn.incr("tries"))
    if tries < 3:
        raise RuntimeError("on purpose")
    return tries


@huey.task()
@huey.lock_task("alone")
def alone() -> str:
    return "alone"


@huey.periodic_task(crontab(minute="*"))
def every_minute() -> None:
    huey.storage.conn.incr("minutes")
