"""Writes over several instances: all of it or nothing, whoever looks, whoever is killed.

Money is moved between accounts on four instances, elements between lists, and pairs of keys are
always written together. Readers look all the while; instances and the proxy are killed. At the end
not a coin, not an element is missing or there twice.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from conftest import Threadis
from threadis import _core
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
ACCOUNTS = [f"account:{number}" for number in range(12)]
LISTS = [f"list:{number}" for number in range(8)]
COINS, ELEMENTS = 1000, 50
FULL = os.environ.get("THREADIS_TORTURE") == "full"
PAUSE = 60.0  # seconds; what dies often is started again only after a while
SECONDS = 60.0 if FULL else 4.0
PUSHES = 3000 if FULL else 150  # of each client

# What a client is told when a server dies under its command.
FAULTS = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, redis.WatchError)


def owner(key: str) -> int:
    return _core.slot(key.encode()) * INSTANCES // 16384


class Load:
    """Threads that move things, and threads that look."""

    def __init__(self, running: Threadis) -> None:
        self.running = running
        self.is_over = threading.Event()
        self.wrong: list[str] = []
        self.done = 0
        self.failed = 0
        self.threads: list[threading.Thread] = []

    def start(self, job: Callable[[redis.Redis, random.Random], None], seed: int) -> None:
        # A daemon: a test that fails before `finish` must not keep the run from ending.
        thread = threading.Thread(target=self._run, args=(job, random.Random(seed)), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, job: Callable[[redis.Redis, random.Random], None], dice: random.Random) -> None:
        with self.running.client() as client:
            while not self.is_over.is_set():
                try:
                    job(client, dice)
                    self.done += 1
                except FAULTS:
                    self.failed += 1  # the outcome is unknown, or nothing was done; the sum knows

    def stop(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def pay(self, client: redis.Redis, dice: random.Random) -> None:
        giver, taker = dice.sample(ACCOUNTS, 2)
        with client.pipeline(transaction=True) as block:
            block.decrby(giver, amount := dice.randint(1, 9))
            block.incrby(taker, amount)
            block.execute()

    def pay_watching(self, client: redis.Redis, dice: random.Random) -> None:
        giver, taker = dice.sample(ACCOUNTS, 2)
        with client.pipeline(transaction=True) as block:
            block.watch(giver, taker)  # type: ignore[no-untyped-call]
            values: Any = block.mget(giver, taker)
            have, has = map(int, values)
            block.multi()
            block.mset({giver: have - 1, taker: has + 1})
            block.execute()

    def move(self, client: redis.Redis, dice: random.Random) -> None:
        source, target = dice.sample(LISTS, 2)
        client.lmove(source, target, "LEFT", "RIGHT")

    def write_pairs(self, client: redis.Redis, dice: random.Random) -> None:
        value = dice.random()
        client.mset(dict.fromkeys(("pair:a", "pair:b", "pair:c", "pair:d"), value))

    def read_pairs(self, client: redis.Redis, dice: random.Random) -> None:
        values: Any = client.mget("pair:a", "pair:b", "pair:c", "pair:d")
        if len(set(values)) != 1:
            self.wrong.append(f"half of a MSET: {values}")

    def audit(self, client: redis.Redis, dice: random.Random) -> None:
        with client.pipeline(transaction=True) as block:
            for account in ACCOUNTS:
                block.get(account)
            total = sum(map(int, block.execute()))
        if total != COINS * len(ACCOUNTS):
            self.wrong.append(f"half of a payment: {total}")


def fill(client: redis.Redis) -> None:
    client.mset(dict.fromkeys(ACCOUNTS, COINS))
    for name in LISTS:
        client.rpush(name, *(f"{name}:{number}" for number in range(ELEMENTS)))


def check(client: redis.Redis) -> None:
    values: Any = client.mget(ACCOUNTS)
    assert sum(map(int, values)) == COINS * len(ACCOUNTS)
    found: list[Any] = [one for name in LISTS for one in client.lrange(name, 0, -1)]
    assert len(found) == len(set(found)) == ELEMENTS * len(LISTS)


def begin(running: Threadis) -> Load:
    assert {owner(key) for key in ACCOUNTS} == {owner(key) for key in LISTS} == {0, 1, 2, 3}
    with running.client() as client:
        fill(client)
    load = Load(running)
    jobs = (load.pay, load.pay_watching, load.move, load.write_pairs, load.read_pairs, load.audit)
    for seed, job in enumerate(jobs * 2):
        load.start(job, seed)
    return load


def finish(load: Load) -> None:
    load.stop()
    assert not load.wrong, load.wrong[:3]
    assert load.done > 100

    def everything_is_there() -> bool:
        try:
            with load.running.client() as client:
                check(client)
                return True
        except FAULTS:
            return False

    until(everything_is_there, "every coin and element", PAUSE)


@pytest.mark.torture
@pytest.mark.timeout(1800 if FULL else 120)
@pytest.mark.parametrize("workers", ["1", "3"])
def test_nobody_sees_a_half(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, workers: str
) -> None:
    running = threadis(
        "--server", str(stock_server.path), "--instances", str(INSTANCES), "--workers", workers,
        "--save", "",
    )  # fmt: skip
    load = begin(running)
    load.is_over.wait(SECONDS)
    finish(load)


@pytest.mark.torture
@pytest.mark.timeout(1800 if FULL else 120)
@pytest.mark.parametrize("victim", ["instance", "proxy"])
def test_a_killed_process_leaves_all_or_nothing(
    threadis: Callable[..., Threadis], victim: str
) -> None:
    running = threadis(
        "--instances", str(INSTANCES), "--save", "", "--appendonly", "yes",
        "--set", "appendfsync=always", "--set", "no-appendfsync-on-rewrite=no",
    )  # fmt: skip
    load = begin(running)
    dice = random.Random(5)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        load.is_over.wait(dice.uniform(0.3, 0.9))
        if victim == "instance":
            until(running.instance_pids, "an instance to kill", PAUSE)
            os.kill(dice.choice(running.instance_pids()), signal.SIGKILL)
        else:
            until(running.proxy_pids, "a proxy to kill", PAUSE)
            os.kill(running.proxy_pid(), signal.SIGKILL)
    finish(load)


def test_who_pushes_beside_waiting_moves_loses_nothing(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    running = threadis(
        "--server", str(stock_server.path), "--instances", str(INSTANCES), "--workers", "2",
        "--save", "",
    )  # fmt: skip
    pushed: list[set[str]] = [set() for _ in range(8)]
    failed: list[BaseException] = []
    is_over = threading.Event()

    def guarded(job: Callable[[redis.Redis, int, random.Random], None], number: int) -> None:
        try:
            with running.client() as client:
                job(client, number, random.Random(number))
        except BaseException as error:
            failed.append(error)
            is_over.set()

    def push(client: redis.Redis, number: int, dice: random.Random) -> None:
        for at in range(PUSHES):
            name, element = dice.choice(LISTS), f"{number}-{at}"
            match dice.randrange(4):
                case 0:
                    client.lpush(name, element)
                case 1:
                    client.rpush(name, element)
                case 2:
                    client.eval("return redis.call('LPUSH', KEYS[1], ARGV[1])", 1, name, element)
                case _:
                    with client.pipeline() as block:
                        block.lpush(name, element)
                        block.execute()
            pushed[number].add(element)

    def move(client: redis.Redis, number: int, dice: random.Random) -> None:
        ends = ("LEFT", "RIGHT")
        while not is_over.is_set():
            source, target = dice.choice(LISTS), dice.choice(LISTS)
            if number % 3:
                client.blmove(source, target, 1, dice.choice(ends), dice.choice(ends))
            else:
                client.brpoplpush(source, target, 1)

    movers = [threading.Thread(target=guarded, args=(move, n), daemon=True) for n in range(12)]
    pushers = [threading.Thread(target=guarded, args=(push, n), daemon=True) for n in range(8)]
    for thread in [*movers, *pushers]:
        thread.start()
    for thread in pushers:
        thread.join()
    is_over.set()
    for thread in movers:
        thread.join()
    assert not failed, failed[0]
    with running.client() as client:
        found: list[Any] = [one for name in LISTS for one in client.lrange(name, 0, -1)]
    assert Counter(one.decode() for one in found) == Counter(set().union(*pushed))
