"""FLUSHALL, FLUSHDB and SWAPDB happen on all instances or on none, although one dies meanwhile."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from conftest import Threadis
from faults import DURABLE, locks, stopped
from raw import Raw, keys_of
from waiting import until

INSTANCES = 3
KEYS = 60
ROUNDS = 5
PAUSE = 60.0  # seconds; what dies often is started again only after a while
FLAGS = ["--instances", str(INSTANCES), "--save", "", *DURABLE]


@pytest.mark.parametrize("goes_on", [False, True], ids=["killed before", "killed any time"])
@pytest.mark.parametrize("victim", [0, INSTANCES - 1])
@pytest.mark.parametrize("words", ["FLUSHDB", "SWAPDB 0 1"])
def test_whoever_dies_it_happens_everywhere_or_nowhere(
    threadis: Callable[..., Threadis], words: str, victim: int, goes_on: bool
) -> None:
    running = threadis(*FLAGS)
    with running.client() as client:
        client.mset({f"key:{number}": number for number in range(KEYS)})
        pid = running.instance_pids()[victim]
        os.kill(pid, signal.SIGSTOP)
        replies: list[Any] = []
        other = redis.Redis(port=running.port, socket_timeout=PAUSE, retry=Retry(NoBackoff(), 0))
        thread = threading.Thread(target=ask, args=(other, words, replies), daemon=True)
        thread.start()
        until(lambda: replies or locks(client), "it is under way")
        if goes_on:
            os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
        thread.join()
        until(lambda: len(running.instance_pids()) == INSTANCES, "it is back", PAUSE)
        if replies == [b"OK"]:
            after = (0, KEYS if words.startswith("SWAPDB") else 0)
        else:
            assert "was not run" in str(replies[0])
            after = (KEYS, 0)
        until(lambda: sizes(running.port) == after, "all or nothing", PAUSE)


@pytest.mark.parametrize("words", ["FLUSHALL", "SWAPDB 0 1"])
def test_if_the_proxy_dies_it_happens_everywhere_or_nowhere(
    threadis: Callable[..., Threadis], words: str
) -> None:
    running = threadis(*FLAGS)
    for count in range(1, ROUNDS + 1):
        with running.client() as client:
            client.flushall()
            client.mset({f"key:{number}": number for number in range(KEYS)})
        replies: list[Any] = []
        is_over = threading.Event()
        job = partial(again_and_again, running.port, words, replies, is_over)
        thread = threading.Thread(target=job)
        thread.start()
        until(partial(has, replies, count), "it is under way")
        for pid in running.proxy_pids():
            os.kill(pid, signal.SIGKILL)
        is_over.set()
        thread.join()
        until(partial(is_whole, running.port), "everywhere or nowhere", PAUSE)


def has(replies: list[Any], count: int) -> bool:
    return len(replies) >= count


def is_whole(port: int) -> bool:
    return sizes(port) in ((KEYS, 0), (0, KEYS), (0, 0))


def again_and_again(port: int, words: str, replies: list[Any], is_over: threading.Event) -> None:
    """Until it is over, or the connection is lost."""
    with redis.Redis(port=port, socket_timeout=PAUSE, retry=Retry(NoBackoff(), 0)) as client:
        call: Callable[..., Any] = client.execute_command
        with contextlib.suppress(redis.ConnectionError):
            while not is_over.is_set():
                replies.append(call(*words.split()))
                if words == "FLUSHALL":
                    client.mset({f"key:{number}": number for number in range(KEYS)})


@pytest.mark.parametrize(
    "words",
    ["CONFIG GET save", "DBSIZE", "FLUSHDB", "SWAPDB 0 1", "EVAL return(1) 0", "PUBLISH a b"],
)
def test_a_transaction_runs_nothing_if_it_is_known_that_an_instance_would_not(
    threadis: Callable[..., Threadis], words: str
) -> None:
    running = threadis("--instances", str(INSTANCES), "--save", "")
    first, last = (next(keys_of(index, INSTANCES)) for index in (0, INSTANCES - 1))
    with Raw(("127.0.0.1", running.port)) as client:
        assert client.ask("MSET", first, "old", last, "old") == b"+OK\r\n"
        with stopped(running.instance_pids()[-1]):
            until(lambda: client.ask("GET", last).startswith(b"-TRYAGAIN"), "it is known")
            assert client.ask("MULTI") == b"+OK\r\n"
            for queued in (("SET", first, "new"), words.split(), ("SET", last, "new")):
                client.ask(*queued)
            assert client.ask("EXEC").startswith((b"-TRYAGAIN", b"-EXECABORT"))
        until(lambda: client.ask("PING", "x") == b"$1\r\nx\r\n", "it is answered")
        until(lambda: not client.ask("GET", last).startswith(b"-"), "it is back", PAUSE)
        assert client.ask("MGET", first, last) == b"*2\r\n$3\r\nold\r\n$3\r\nold\r\n"


def ask(client: redis.Redis, words: str, replies: list[Any]) -> None:
    with client:
        try:
            client.set_response_callback(words.split()[0], lambda reply, **_: reply)
            call: Callable[..., Any] = client.execute_command
            replies.append(call(*words.split()))
        except redis.ResponseError as error:
            replies.append(error)


def sizes(port: int) -> tuple[int, ...]:
    """How many keys are in the two databases; nothing while an instance is not back."""
    found = []
    for db in (0, 1):
        with redis.Redis(port=port, socket_timeout=PAUSE, db=db) as client:
            try:
                found.append(int(client.dbsize()))
            except (redis.ConnectionError, redis.ResponseError):
                return ()
    return tuple(found)
