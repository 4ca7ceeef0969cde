"""Administration where it is more than what a stock server would say: races, and nobody to ask."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from conftest import Threadis
from waiting import until

Start = Callable[..., Threadis]


def test_slowlog_entries_are_numbered_once_whoever_looks_at_the_same_time(threadis: Start) -> None:
    running = threadis("--instances", "4", "--save", "")
    with running.client() as client:
        client.config_set("slowlog-log-slower-than", 0)
        for number in range(50):
            client.set(f"k:{number}", "v")
        client.config_set("slowlog-log-slower-than", 1_000_000)

        def look(_: int) -> list[tuple[int, bytes]]:
            with running.client() as one:
                return [(entry["id"], entry["command"]) for entry in one.slowlog_get(-1)]

        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(look, range(16)))
        ids = [number for number, _ in seen[0]]
        assert len(ids) >= 50
        assert len(set(ids)) == len(ids)
        assert all(one == seen[0] for one in seen)


def test_with_no_instance_to_ask_the_client_is_told_to_try_again(threadis: Start) -> None:
    running = threadis("--instances", "2", "--save", "")
    pids = running.instance_pids()
    with running.client() as client:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: running.log().count("does not answer") >= 2, "both are seen stopped")
            for line in (
                "SLOWLOG GET", "SLOWLOG LEN", "WAIT x 0", "CONFIG GET port", "INFO",
                "SCRIPT EXISTS x", "EVAL return 0", "CONFIG SET maxmemory-clients 1",
            ):  # fmt: skip
                with pytest.raises(redis.exceptions.TryAgainError):
                    client.execute_command(*line.split(" "))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
