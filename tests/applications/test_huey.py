"""huey: results, delays, retries, locks, priorities and the periodic schedule."""

import importlib
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from huey.exceptions import TaskException

from applications.conftest import Worker
from waiting import until

WAIT = 20  # seconds for a result on a busy machine


def test_huey(url: str, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    from applications import huey_app as app  # a queue connects where it is made

    importlib.reload(app)
    worker("-m", "huey.bin.huey_consumer", "applications.huey_app.huey", "-w", "2", "-s", "1")
    results = [app.add(n, n) for n in range(20)]
    assert [one(blocking=True, timeout=WAIT) for one in results] == [2 * n for n in range(20)]
    tried = app.third_time()
    until(lambda: app.huey.storage.conn.get("tries") == b"3", "it was tried three times", WAIT)
    until(lambda: _outcome(tried) == 3, "its result is there", WAIT)
    begin = time.monotonic()
    assert app.add.schedule((2, 2), delay=1)(blocking=True, timeout=WAIT) == 4
    assert time.monotonic() - begin >= 0.9  # its clock is a second's
    revoked = app.add.schedule((1, 1), delay=3600)
    revoked.revoke()
    assert revoked.is_revoked()
    with app.huey.lock_task("alone"), pytest.raises(TaskException):
        app.alone()(blocking=True, timeout=WAIT)
    assert app.alone()(blocking=True, timeout=WAIT) == "alone"
    assert [task.name for task in app.huey.read_periodic(datetime.now())] == ["every_minute"]
    low, high = (app.urgent.task(priority=n, name=f"p{n}")(lambda: None) for n in (1, 9))
    for task in (low, high):
        task()
    assert [app.urgent.dequeue().priority for _ in range(2)] == [9, 1]


def _outcome(result: object) -> object:
    try:
        return result.get()  # type: ignore[attr-defined] # huey has no types
    except TaskException:
        return None  # of an earlier try
