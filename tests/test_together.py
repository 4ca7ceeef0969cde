"""Several processes die at the same moment, in any combination: what is left serves again."""

import os
import random
import signal
from collections.abc import Callable, Iterable

import pytest
import redis

from conftest import Threadis
from faults import DURABLE, stopped
from waiting import alive, until

Start = Callable[..., Threadis]
KEYS = [f"key:{number}" for number in range(32)]  # enough to lie on every instance


def is_whole(running: Threadis) -> bool:
    """Whether all keys are there again, and can be written together."""
    try:
        with running.client() as client:
            return (
                client.mget(KEYS) == [key.encode() for key in KEYS]
                and client.mset({key: key for key in KEYS}) is True
            )
    except redis.RedisError:
        return False


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("instances", [1, 3])
def test_all_instances_and_the_proxy_come_back(threadis: Start, instances: int) -> None:
    running = threadis("--instances", str(instances), *DURABLE)
    with running.client() as client:
        client.mset({key: key for key in KEYS})
    for order in (1, -1):
        victims = [running.proxy_pid(), *running.instance_pids()][::order]
        kill(victims)
        until(lambda victims=victims: not any(map(alive, victims)), "all die")  # type: ignore[misc]
        until(lambda: is_whole(running), "all is there again")
    assert "proxy serves again" in running.log()
    assert "Traceback" not in running.log()


def test_any_combination_comes_back(threadis: Start) -> None:
    running = threadis("--instances", "3", *DURABLE)
    with running.client() as client:
        client.mset({key: key for key in KEYS})
    chance = random.Random(13)
    for _ in range(6):
        family = [running.proxy_pid(), *running.instance_pids()]
        victims = chance.sample(family, chance.randint(2, len(family)))
        kill(victims)
        # … and some of what comes up instead, in the middle of its start
        until(lambda: new_ones(running, family), "the first ones come up")  # noqa: B023
        kill(chance.sample(new_ones(running, family), 1))
        until(lambda: is_whole(running), "all is there again")
        until(lambda: len(running.proxy_pids()) == 1, "one proxy")
    assert "Traceback" not in running.log()


def new_ones(running: Threadis, before: list[int]) -> list[int]:
    return [p for p in [*running.proxy_pids(), *running.instance_pids()] if p not in before]


def test_an_instance_that_is_stopped_does_not_keep_a_new_proxy_from_serving(
    threadis: Start,
) -> None:
    running = threadis("--instances", "2")
    with running.client() as client:
        client.mset({key: key for key in KEYS})
    with stopped(running.instance_pids()[0]):
        proxy = running.proxy_pid()
        kill([proxy])
        until(lambda: running.proxy_pids() not in ([], [proxy]), "another proxy")
        until(lambda: reached(running) not in (0, len(KEYS)), "the other instance's keys")
    until(lambda: is_whole(running), "all is there again")


def reached(running: Threadis) -> int:
    """How many keys answer."""
    found = 0
    try:
        with running.client() as client:
            for key in KEYS:
                try:
                    found += client.get(key) == key.encode()
                except redis.ResponseError:
                    continue
    except redis.RedisError:
        return 0
    return found


def test_while_no_instance_is_ready_a_new_proxy_says_so(threadis: Start) -> None:
    running = threadis("--instances", "1", *DURABLE)
    with running.client() as client:
        client.mset({key: key for key in KEYS})
    hidden = running.folder / "away"
    (running.folder / "instance-0" / "appendonlydir").rename(hidden)
    victims = [running.proxy_pid(), *running.instance_pids()]
    kill(victims)

    def says_so() -> bool:
        try:
            with running.client() as client:
                client.ping()
        except redis.BusyLoadingError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):  # it still starts
            return False
        return False

    until(says_so, "the error that says so")
    hidden.rename(running.folder / "instance-0" / "appendonlydir")
    until(lambda: is_whole(running), "all is there again", 60.0)
