"""The Celery application of test_celery.py; its worker imports it too."""

import os
from typing import Any

from celery import Celery

URL = os.environ.get("REDIS_URL", "redis://")
app = Celery("applications", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_extended=True,
    worker_prefetch_multiplier=1,
)


@app.task
def add(one: int, other: int) -> int:
    return one + other


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, max_retries=3, default_retry_delay=0)
def third_time(self: Any) -> int:
    """Fails twice."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task
def fails() -> None:
    raise ValueError("on purpose")
