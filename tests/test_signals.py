"""Signals that come while thREaDIS stops: by accident, or because somebody insists."""

import signal
import time

import pytest

from conftest import STOP_LIMIT
from test_supervisor import Start, check, fill
from waiting import until


def test_one_that_cannot_save_is_told_and_one_who_insists_ends_it(threadis: Start) -> None:
    running = threadis("--instances", "2")
    with running.client() as client:
        fill(client)
    (running.folder / "instance-0" / "dump.rdb").mkdir()
    running.process.terminate()
    until(lambda: "instance 0 cannot save and refuses to stop" in running.log(), "the refusal")
    until(lambda: "still stopping; SIGINT (Ctrl-C) now ends at once" in running.log(), "the offer")
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(STOP_LIMIT) == 1
    assert "SIGINT: stopping at once" in running.log()
    assert "instance 0 was killed; what it had not written to disk is lost" in running.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("pause", [0.0, 0.003, 0.1])
def test_signals_that_come_by_accident_lose_nothing(
    threadis: Start, number: signal.Signals, pause: float
) -> None:
    """Two at once from ``timeout``, a key held down, ``while kill PID; do ...``."""
    running = threadis("--instances", "2")
    with running.client() as client:
        fill(client)
    deadline = time.monotonic() + (1.0 if number is signal.SIGINT else STOP_LIMIT)
    while running.process.poll() is None and time.monotonic() < deadline:
        running.process.send_signal(number)
        time.sleep(pause)
    assert running.process.wait(STOP_LIMIT) == 0, running.log()
    again = threadis(folder=running.folder)
    with again.client() as client:
        check(client)
