"""What thousands of clients that wait cost others: nothing. Counted in lines of Python that run."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import pytest

from threadis import _core
from threadis.coordinator.locks import Key, Lock, Locks
from threadis.coordinator.waiters import GROUP, LIST, STREAM, Waiter, Waiters, request

FEW, MANY = 3, 3_000
KEY = b"key"
Tracer = Callable[[FrameType, str, Any], Any]


class Workers:
    """Says what a worker would: that a lock holds."""

    def __init__(self) -> None:
        self.table = Locks(cast(_core.Proxy, self), workers=1, instances=1)
        self.held: list[int] = []  # tokens

    def lock(self, token: int, *_: object) -> None:
        """Hold clients back."""
        self.held.append(token)
        self.table.locked(cast(_core.Locked, _Locked(token)))

    def unlock(self, token: int) -> None:
        """Not any more."""
        self.held.remove(token)


def lines(action: Callable[[], object]) -> int:
    """How many lines of ours an action runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Tracer | None:
        nonlocal count
        if "threadis" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


async def ask(
    manager: contextlib.AbstractAsyncContextManager[Lock],
) -> "asyncio.Task[Lock]":
    """Stand in line for a lock, which the test will release."""

    async def granted() -> Lock:
        lock = await manager.__aenter__()
        lock.is_kept = True
        return lock

    task = asyncio.create_task(granted())
    await settled()
    return task


async def settled() -> None:
    """Let everybody who can go on."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_lock_costs_the_same_whoever_else_waits() -> None:
    async def costs(count: int) -> list[int]:
        table = Workers().table
        tasks = [await ask(table.stand_in_line([(0, KEY)])) for _ in range(count)]
        other = await ask(table.stand_in_line([(0, b"other")]))
        found = [lines(lambda: table.release(other.result()))]
        for task, behind in itertools.pairwise(tasks[:3]):
            assert task.done() and not behind.done()
            found.append(lines(lambda: table.release(task.result())))  # noqa: B023
            await settled()
            assert behind.done()
        for task in tasks:
            task.cancel()
        return found

    assert asyncio.run(costs(FEW)) == asyncio.run(costs(MANY))


def test_locks_are_granted_in_order_of_arrival() -> None:
    async def run() -> None:
        workers = Workers()
        table = workers.table
        wanted: list[list[Key]] = [
            [(0, b"a", False)], [(0, b"a", False)], [(0, b"a", True), (0, b"b", False)],
            [(0, b"b", False)], [(0, b"b", True)], [(0, b"a", False), (0, b"b", False)],
            [(0, b"c", True)],
        ]  # fmt: skip
        tasks = [await ask(table.hold(keys, [0])) for keys in wanted]
        tasks.append(await ask(table.hold_everything()))
        tasks.append(await ask(table.hold([(0, b"d", False)], [0])))
        assert workers.held == [1, 2, 4, 7]  # 6 shares with these, but 3 and 5 are older
        for token, then in (
            (1, [2, 4, 7]), (2, [4, 7, 3]), (3, [4, 7]), (4, [7, 5]), (7, [5]), (5, [6]),
            (6, [8]),  # on everything: alone
            (8, [9]), (9, []),
        ):  # fmt: skip
            table.release(tasks[token - 1].result())
            await settled()
            assert workers.held == then
        assert table.count() == 0

    asyncio.run(run())


def test_who_gives_up_lets_those_behind_go_on() -> None:
    async def run() -> None:
        workers = Workers()
        table = workers.table
        await ask(table.hold([(0, KEY, False)], [0]))
        impatient = await ask(table.hold([(0, KEY, True)], [0]))
        await ask(table.hold([(0, KEY, False)], [0]))
        assert workers.held == [1]
        impatient.cancel()
        await settled()
        assert workers.held == [1, 3]

    asyncio.run(run())


def waiter(number: int, *words: bytes, keys: list[bytes]) -> Waiter:
    """A client that waits."""
    wish = request(words[0].decode(), list(words), keys)
    assert wish
    info = _Info(number)
    return Waiter(cast(_core.Command, _Command(0, number, 0, info)), wish)


@pytest.fixture
def crowds() -> Iterator[list[Waiters]]:
    """Few clients that wait for a key, and many."""
    crowds = []
    for count in (FEW, MANY):
        crowd = Waiters()
        for number in range(count):
            crowd.add(waiter(number, b"blpop", KEY, b"0", keys=[KEY]))
            crowd.add(waiter(count + number, b"blpop", b"%d" % number, b"0", keys=[b"%d" % number]))
        crowds.append(crowd)
    yield crowds


def test_one_more_or_less_costs_the_same_whoever_else_waits(crowds: list[Waiters]) -> None:
    costs = []
    for crowd in crowds:
        one = waiter(10 * MANY, b"blpop", KEY, b"own", b"0", keys=[KEY, b"own"])
        first = crowd.first((0, KEY), LIST)
        assert first
        costs.append([
            lines(lambda: crowd.add(one)),  # noqa: B023
            lines(lambda: crowd.remove(first)),  # noqa: B023
            lines(lambda: crowd.first((0, KEY), LIST)),  # noqa: B023
            lines(lambda: crowd.of_id(10 * MANY)),  # noqa: B023
            lines(lambda: crowd.remove(one)),  # noqa: B023
            lines(crowd.count_places),
        ])  # fmt: skip
    assert costs[0] == costs[1]


def test_lines_are_apart() -> None:
    crowd = Waiters()
    group = [b"xreadgroup", b"GROUP", b"g", b"me", b"BLOCK", b"0", b"STREAMS", KEY, b">"]
    read = [b"xread", b"BLOCK", b"0", b"STREAMS", KEY, b"$"]
    waiting = [
        waiter(1, *group, keys=[KEY]),
        waiter(2, *read, keys=[KEY]),
        waiter(3, b"blpop", KEY, b"0", keys=[KEY]),
        waiter(4, *group, keys=[KEY]),
    ]
    assert [crowd.add(one) for one in waiting] == [[(0, KEY)], [], [], []]
    place = (0, KEY)
    assert crowd.lines(place) == [GROUP + b"g", STREAM, LIST]
    assert list(crowd.line(place, GROUP + b"g")) == [waiting[0], waiting[3]]
    assert list(crowd.with_groups()) == [place]
    assert [crowd.remove(one) for one in (waiting[0], waiting[3])] == [[], []]
    assert not crowd.with_groups()
    assert [crowd.remove(one) for one in waiting[1:3]] == [[], [place]]
    assert place not in crowd


class _Locked:
    """A lock holds."""

    def __init__(self, token: int) -> None:
        self.token = token


class _Info:
    """Whom a command is from."""

    def __init__(self, number: int) -> None:
        self.id, self.db, self.resp = number, 0, 2


class _Command:
    """Which client a command is from."""

    def __init__(self, worker: int, place: int, generation: int, info: _Info) -> None:
        self.worker, self.place, self.generation, self.info = worker, place, generation, info
