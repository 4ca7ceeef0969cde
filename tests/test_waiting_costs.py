"""What thousands of clients that wait cost others: nothing. Counted in lines of Python that run."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import pytest

from threadis import _core
from threadis.catalog.blocking import LIST, STREAM
from threadis.coordinator.blocking.lookups import Lookups
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.waiters import (
    AT_ONCE,
    GROUP,
    Waiter,
    Waiters,
    parse_request,
)

FEW, MANY = 3, 3_000
KEY = b"key"
Tracer = Callable[[FrameType, str, Any], Any]


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


def waiter(number: int, *words: bytes, keys: list[bytes]) -> Waiter:
    """A client that waits."""
    wish = parse_request(words[0].decode(), list(words), keys)
    assert wish
    info = _Info(number)
    return Waiter(cast(_core.Command, _Command(0, number, 0, info)), wish)


def add(crowd: Waiters, one: Waiter) -> list[Place]:
    """Let a client wait; the queues that are new."""
    crowd.add(one)
    return crowd.enqueue(one, one.request.keys)


def remove(crowd: Waiters, one: Waiter) -> list[Place]:
    """Let it wait no more; the queues that have ended."""
    crowd.remove(one)
    return crowd.dequeue(one)


@pytest.fixture
def crowds() -> Iterator[list[Waiters]]:
    """Few clients that wait for a key, and many."""
    crowds = []
    for count in (FEW, MANY):
        crowd = Waiters()
        for number in range(count):
            add(crowd, waiter(number, b"blpop", KEY, b"0", keys=[KEY]))
            own = b"%d" % number
            add(crowd, waiter(count + number, b"blpop", own, b"0", keys=[own]))
        crowds.append(crowd)
    yield crowds


def test_one_more_or_less_costs_the_same_whoever_else_waits(crowds: list[Waiters]) -> None:
    costs = []
    for crowd in crowds:
        one = waiter(10 * MANY, b"blpop", KEY, b"own", b"0", keys=[KEY, b"own"])
        first = crowd.first((0, KEY), LIST)
        assert first
        costs.append([
            lines(lambda: add(crowd, one)),  # noqa: B023
            lines(lambda: remove(crowd, first)),  # noqa: B023
            lines(lambda: crowd.first((0, KEY), LIST)),  # noqa: B023
            lines(lambda: crowd.of_id(10 * MANY)),  # noqa: B023
            lines(lambda: remove(crowd, one)),  # noqa: B023
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
    assert [add(crowd, one) for one in waiting] == [[(0, KEY)], [], [], []]
    place = (0, KEY)
    assert crowd.queues(place) == [GROUP + b"g", STREAM, LIST]
    assert list(crowd.queue(place, GROUP + b"g")) == [waiting[0], waiting[3]]
    assert list(crowd.with_groups()) == [place]
    assert [remove(crowd, one) for one in (waiting[0], waiting[3])] == [[], []]
    assert not crowd.with_groups()
    assert [remove(crowd, one) for one in waiting[1:3]] == [[], [place]]
    assert place not in crowd


def test_who_waits_for_many_keys_is_taken_out_in_steps_and_seen_nowhere() -> None:
    crowd, keys = Waiters(), [b"%d" % number for number in range(2 * AT_ONCE)]
    wide, other = (
        waiter(number, b"blpop", *keys, b"0", keys=[*keys, keys[0]]) for number in (1, 2)
    )
    assert len(add(crowd, wide)) == len(keys)
    assert crowd.enqueue(other, keys[:1]) == []
    crowd.add(other)
    crowd.remove(wide)
    assert len(crowd) == 1
    assert crowd.first((0, keys[0]), LIST) is other
    assert not crowd.queue((0, keys[1]), LIST)
    assert len(crowd.dequeue(wide)) == AT_ONCE
    remove(crowd, other)
    crowd.dequeue(wide)
    assert not wide.places
    assert not crowd.count_places()


def test_who_writes_waits_for_who_came_before_and_looks_there() -> None:
    async def scenario() -> None:
        coming = Lookups()
        with coming.of_many_keys() as looked_at:
            here, there = (
                asyncio.create_task(coming.wait_for([(0, key)])) for key in (b"here", b"there")
            )
            await asyncio.sleep(0)
            assert coming
            looked_at.set_result(frozenset([(0, b"here")]))
            await there
            assert not here.done()
        await here
        assert not coming

    asyncio.run(scenario())


class _Info:
    """Whom a command is from."""

    def __init__(self, number: int) -> None:
        self.id, self.db, self.resp = number, 0, 2


class _Command:
    """Which client a command is from."""

    def __init__(self, worker: int, place: int, generation: int, info: _Info) -> None:
        self.worker, self.place, self.generation, self.info = worker, place, generation, info
