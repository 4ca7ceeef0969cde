"""A transaction with more than ordinary keys is whole: whoever dies, all happens or nothing."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from conftest import Threadis
from faults import DURABLE, locks, stopped
from raw import Raw, command, keys_of
from waiting import until

pytestmark = pytest.mark.sample

INSTANCES = 3
ROUNDS = 5
PAUSE = 60.0  # seconds; what dies often is started again only after a while
FLAGS = ["--instances", str(INSTANCES), "--save", "", *DURABLE]
KEYS = [next(keys_of(index, INSTANCES)).decode() for index in range(INSTANCES)]
OTHERS = [next(keys_of(index, INSTANCES, "other")).decode() for index in range(INSTANCES)]
SET = [f"SET {key} %d" for key in KEYS]
STRAY = "EVAL return(redis.call('SET',ARGV[1],'script')) 0 undeclared"

# What stands between writes on all instances.
MIDDLES = (
    "PING", "ECHO hello", "PUBLISH channel message", "TIME", "SELECT 2|SELECT 0", "DBSIZE",
    "KEYS *", "BLPOP queue 0", "XREAD BLOCK 0 STREAMS stream 0", "MOVE nothing 3", "FLUSHDB",
    "FLUSHALL", "SWAPDB 5 6", "CONFIG GET port",
    # On keys of several instances, and of the whole keyspace.
    "LCS {0} {1}|DBSIZE", "LCS {0} {1}|KEYS *", "BLPOP {0} {1} 0|DBSIZE",
    "DBSIZE|BRPOPLPUSH {0} {1}", "SORT {0} BY x_*", "SORT {0} STORE {1}", "COPY nothing {1} DB 3",
    "LCS {0} {1}|FLUSHDB", "LCS {0} {1}|FLUSHALL", "LCS {0} {1}|SWAPDB 5 6",
    "LCS {0} {1}|SELECT 2|MSET {0} x {1} y|SELECT 0", "LCS {0} {1}|MOVE nothing 3",
    "INFO keyspace", "SCAN 0", "RANDOMKEY", "RANDOMKEY|LCS {0} {1}", "UNWATCH", "SWAPDB 0 99",
    "SCRIPT EXISTS x",
    # Scripts that can touch no other keys for certain, and one that could.
    "|".join(f"EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 {key} script" for key in KEYS),
    STRAY,
    f"EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 {KEYS[1]} script|FCALL nothing 0",
    # The same together with databases, sweeps and SORT by other keys.
    *(f"{STRAY}|{other}|{STRAY}" for other in (
        "SELECT 2|SELECT 0", "MOVE undeclared 3", "COPY undeclared {1} DB 3", "FLUSHDB", "FLUSHALL",
        "SWAPDB 5 6", "SORT {0} BY x_*",
    )),
)  # fmt: skip
# What comes before all writes, and is run before them.
FIRST = "first "
BEGINNINGS = ("CONFIG SET hz 11", "SCRIPT LOAD return(1)|PING", "FUNCTION FLUSH")


@pytest.mark.parametrize("victim", range(INSTANCES))
@pytest.mark.parametrize("middle", [*MIDDLES, *(f"{FIRST}{before}" for before in BEGINNINGS)])
def test_if_an_instance_dies(threadis: Callable[..., Threadis], middle: str, victim: int) -> None:
    running = threadis(*FLAGS)
    with running.client() as client:
        run(running.port, SET, 0)
        replies: list[Any] = []
        middle = middle.format(*OTHERS)
        commands = [SET[0], *middle.split("|"), *SET[1:], "PING"]
        if middle.startswith(FIRST):
            commands = [*middle.removeprefix(FIRST).split("|"), *SET, "PING"]
        pid = running.instance_pids()[victim]
        os.kill(pid, signal.SIGSTOP)
        thread = threading.Thread(target=run_and_tell, args=(running.port, commands, replies))
        thread.start()
        until(lambda: replies or locks(client), "it is under way")
        os.kill(pid, signal.SIGKILL)
        thread.join()
    until(lambda: len(running.instance_pids()) == INSTANCES, "it is back", PAUSE)
    until(partial(are_equal, running.port), "all or nothing", PAUSE)


@pytest.mark.parametrize("ends", ["CLIENT KILL", "a reset"])
@pytest.mark.parametrize(
    "middle", ["SORT nothing GET x_*", "PUBLISH channel message", "EVAL return(1) 0"]
)
def test_if_its_client_goes(threadis: Callable[..., Threadis], middle: str, ends: str) -> None:
    running = threadis(*FLAGS)
    with running.client() as client, Raw(("127.0.0.1", running.port)) as other:
        client.eval("return(1)", 0)  # all instances know it
        number = int(other.ask("CLIENT", "ID")[1:-2])
        words = [text.replace("%d", "1").split() for text in [*SET[:2], middle, *SET]]
        with stopped(running.instance_pids()[1]):
            other.send(b"".join(command(*one) for one in [["MULTI"], *words, ["EXEC"]]))
            until(lambda: locks(client), "it is under way")
            if ends == "CLIENT KILL":
                client.client_kill_filter(_id=str(number))
            else:
                other.reset()
        until(lambda: not locks(client), "it is over", PAUSE)
        assert client.mget(KEYS) == [b"1"] * INSTANCES


@pytest.mark.parametrize(
    "middle",
    [
        "PUBLISH channel message", "SELECT 1|SELECT 0", "FLUSHDB", f"{STRAY}|FLUSHDB",
        f"{STRAY}|SELECT 1|{STRAY}|SWAPDB 0 1|SELECT 0|{STRAY}",
    ],
)  # fmt: skip
def test_if_the_proxy_dies(threadis: Callable[..., Threadis], middle: str) -> None:
    running = threadis(*FLAGS)
    commands = [*middle.split("|"), *SET, "PING"]
    for number in range(ROUNDS):
        done: list[Any] = []
        is_over = threading.Event()

        def again_and_again(done: list[Any], is_over: threading.Event, number: int) -> None:
            while not is_over.is_set():
                done.append(run(running.port, commands, len(done) * ROUNDS + number))

        thread = threading.Thread(target=again_and_again, args=(done, is_over, number))
        thread.start()
        until(partial(has, done, ROUNDS), "it is under way")
        for pid in running.proxy_pids():
            os.kill(pid, signal.SIGKILL)
        is_over.set()
        thread.join()
        until(partial(are_equal, running.port), "all or nothing", PAUSE)


def run_and_tell(port: int, commands: Sequence[str], replies: list[Any]) -> None:
    replies.append(run(port, commands, 1))


def has(found: list[Any], count: int) -> bool:
    return len(found) >= count


def connect(port: int) -> redis.Redis:
    return redis.Redis(port=port, socket_timeout=PAUSE, retry=Retry(NoBackoff(), 0))


def are_equal(port: int) -> bool:
    """Whether all keys are the same; not while somebody cannot be asked."""
    try:
        with connect(port) as client:
            return len({client.get(key) for key in KEYS}) == 1
    except redis.RedisError:
        return False


def run(port: int, commands: Sequence[str], number: int) -> Any:
    """Run a transaction; its reply, or its error."""
    with connect(port) as client:
        pipe = client.pipeline()
        for text in commands:
            pipe.execute_command(*text.replace("%d", str(number)).split())
        try:
            return pipe.execute(raise_on_error=False)
        except redis.RedisError as error:
            return error
