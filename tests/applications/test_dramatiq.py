"""dramatiq: results, groups, pipelines, delays and retries."""

import importlib
import time
from collections.abc import Callable

import pytest
import redis
from dramatiq import group, pipeline

from applications.conftest import Worker
from waiting import until

WAIT = 20_000  # milliseconds for a result on a busy machine


def test_dramatiq(
    url: str,
    client: "redis.Redis",
    worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    from applications import dramatiq_app as app  # a broker connects where it is made

    importlib.reload(app)
    worker("-m", "dramatiq", "applications.dramatiq_app", "--processes", "1", "--threads", "4")
    assert app.add.send(2, 3).get_result(block=True, timeout=WAIT) == 5
    many = group([app.add.message(n, n) for n in range(20)]).run()
    assert list(many.get_results(block=True, timeout=WAIT)) == [2 * n for n in range(20)]
    steps = pipeline([app.add.message(1, 2), app.add.message(4)]).run()
    assert steps.get_result(block=True, timeout=WAIT) == 7
    app.third_time.send()
    until(lambda: client.get("tries") == "3", "it was tried three times")
    begin = time.monotonic()
    app.note.send_with_options(args=("later",), delay=1000)
    app.note.send("now")
    until(lambda: client.llen("notes") == 2, "both notes are there")
    assert time.monotonic() - begin >= 1
    assert client.lrange("notes", 0, -1) == ["now", "later"]
    app.broker.close()
