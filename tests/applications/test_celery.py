"""Celery: a worker process, results, groups, chords, retries, ETA, revocation, priorities."""

import importlib
import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery, chain, chord, group

from applications import celery_app
from applications.conftest import Worker
from waiting import until

WAIT = 20.0  # seconds for a result on a busy machine


@pytest.fixture
def app(
    url: str, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Celery]:
    monkeypatch.setenv("REDIS_URL", url)
    app = importlib.reload(celery_app).app  # one that has no connections to another server
    worker(
        "-m", "celery", "-A", "applications.celery_app", "worker", "--pool", "threads", "-c", "4"
    )
    yield app
    app.close()


def test_celery(app: Celery) -> None:
    assert celery_app.add.delay(2, 3).get(WAIT) == 5
    assert group(celery_app.add.s(n, n) for n in range(20))().get(WAIT) == [
        2 * n for n in range(20)
    ]
    assert chain(celery_app.add.s(1, 2), celery_app.add.s(4))().get(WAIT) == 7
    body = chord((celery_app.add.s(n, 1) for n in range(30)), celery_app.total.s())
    assert body().get(WAIT) == sum(range(30)) + 30
    assert celery_app.third_time.delay().get(WAIT) == 2
    with pytest.raises(ValueError, match="on purpose"):
        celery_app.fails.delay().get(WAIT)
    begin = time.monotonic()
    assert celery_app.add.apply_async((1, 1), countdown=1).get(WAIT) == 2
    assert time.monotonic() - begin >= 1
    later = celery_app.add.apply_async((1, 1), countdown=3600)
    until(lambda: app.control.inspect(timeout=1).scheduled(), "the worker holds the task")
    later.revoke()
    until(lambda: any((app.control.inspect(timeout=1).revoked() or {}).values()), "it is revoked")
    stats = app.control.inspect(timeout=1).stats()
    assert stats
    assert len(stats) == 1
