"""BLPOP and its kin of keys on several instances: done by workers, one instance after the other."""

import itertools
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from conftest import Threadis
from faults import stopped
from raw import Raw, command, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
KEYS = [next(keys_of(index, INSTANCES)).decode() for index in range(INSTANCES)]
OTHERS = [f"{{{key}}}" for key in KEYS]  # on the same instances
Start = Callable[..., Threadis]


@pytest.fixture
def running(threadis: Start, stock_server: ServerBinary) -> Threadis:
    return threadis(
        "--server", str(stock_server.path), "--instances", str(INSTANCES), "--workers", "1",
        "--save", "",
    )  # fmt: skip


def all_are_ready(running: Threadis) -> bool:
    """Whether every instance is there, also one that was taken for stopped a moment ago."""
    with running.client() as client:
        found: Any = client.info("threadis")
    return all(found[f"instance{at}"]["state"] == "ready" for at in range(INSTANCES))


def number(running: Threadis, name: str) -> int:
    """A number of INFO."""
    with running.client() as client:
        found: Any = client.info("everything")
    return int(found[name])


def test_what_many_want_at_once_is_one_look(running: Threadis) -> None:
    """Each in its own order of keys, some of fewer keys."""
    a, b, c, d = KEYS
    plenty = [str(at) for at in range(100)]
    with clients(running, 40) as many, running.client() as client:
        for key in (b, c, d):
            client.rpush(key, *plenty)
        before = number(running, "threadis_lane_writes")
        with stopped(running.proxy_pid()):
            for at, one in enumerate(many):
                keys = [(a, b, c, d), (a, d, c, b), (a, c), (a, OTHERS[0], a, d, b)][at % 4]
                one.send(command("BLPOP", *keys, "0"))
        found = [one.reply().split(b"\r\n")[2::2] for one in many]
        assert number(running, "threadis_lane_writes") - before < len(many)
        first = {0: b, 1: d, 2: c, 3: d}
        assert [key for key, _ in found] == [first[at % 4].encode() for at in range(len(many))]
        for key, count in ((b, 10), (c, 10), (d, 20)):
            mine = [int(value) for name, value in found if name == key.encode()]
            assert sorted(mine) == list(range(count))
        # More than there is: who finds nothing waits.
        client.delete(*KEYS)
        client.rpush(c, *range(15))
        with stopped(running.proxy_pid()):
            for one in many:
                one.send(command("BLPOP", *KEYS, "0"))
        until(lambda: number(running, "blocked_clients") == 25, "25 wait")
        assert client.rpush(b, *range(15, 40)) == 25
        values = [int(one.reply().split(b"\r\n")[4]) for one in many]
        assert sorted(values) == list(range(40))
        assert client.dbsize() == 0


def test_in_any_database_and_protocol(running: Threadis) -> None:
    """Keys of the same names are others there."""
    a, b, *_ = KEYS
    with ExitStack() as stack, clients(running, 6) as many:
        some = [
            stack.enter_context(running.client(db=db, protocol=protocol))
            for db in (0, 3) for protocol in (2, 3)
        ]  # fmt: skip
        for db, client in ((0, some[0]), (3, some[2])):
            client.rpush(b, *(f"{db}:{at}" for at in range(5)))
        before = number(running, "threadis_unwaited")
        with stopped(running.proxy_pid()):
            for one, db in zip(many, (0, 3) * 3, strict=True):
                one.send(command("SELECT", db) + command("BLPOP", a, b, "0"))
        assert {one.reply() for one in many} == {b"+OK\r\n"}
        values = {one.reply().split(b"\r\n")[4] for one in many}
        assert values == {f"{db}:{at}".encode() for db in (0, 3) for at in range(3)}
        for client in some:
            client.zadd(a, {"m": 1})
            assert list(client.bzpopmin([OTHERS[1], a], 1)) == [a.encode(), b"m", 1]
            assert next(iter(client.brpop([OTHERS[0], b], 1))) == b.encode()
        assert number(running, "threadis_unwaited") == before + 14


@pytest.mark.parametrize("keys", [KEYS[:1], [KEYS[3], KEYS[0]]], ids=["tried", "looked for"])
def test_who_must_go_to_the_coordinator_is_not_overtaken_for_ever(
    running: Threadis, keys: list[str]
) -> None:
    """However many try the same key all the time."""
    with clients(running, 81) as (mover, *others):
        batch = command("RPUSH", KEYS[0], "x", "y") + command("BLPOP", *keys, "0")
        early, late = others[:40], others[40:]
        for one in early:
            one.send(batch)
        mover.send(command("BLMOVE", KEYS[0], KEYS[1], "LEFT", "RIGHT", "0"))
        for _ in range(100):
            for one in late:
                one.send(batch)
            for one in early:
                one.reply(), one.reply()
            early, late = late, early
            if select.select([mover.socket], [], [], 0)[0]:
                break
        else:
            pytest.fail("others went first, 4,000 times")
        for one in early:
            one.reply(), one.reply()
        assert mover.reply()[:1] == b"$"


def leaves_open_lanes(one: Raw) -> None:
    """An instance that hangs would not let a new lane in; then nothing is sent."""
    assert one.ask("RPUSH", KEYS[2], "1", "x") == b":2\r\n"
    assert one.ask("BLPOP", *KEYS[:3], "0").endswith(b"\n1\r\n")


@contextmanager
def clients(running: Threadis, count: int) -> Iterator[list[Raw]]:
    until(lambda: all_are_ready(running), "every instance is there")
    with ExitStack() as stack:
        found = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(count)]
        for one in found:
            assert one.ask("PING") == b"+PONG\r\n"
        yield found


def test_workers_take_the_first_that_is_there(running: Threadis) -> None:
    a, b, c, d = KEYS
    with running.client() as client:
        client.rpush(a, "a1")
        client.rpush(b, "b1", "b2")
        client.rpush(d, "d1", "d2", "d3")
        before = number(running, "threadis_unwaited")
        assert client.blpop([c, a, b, d], 0) == (a.encode(), b"a1")
        assert client.brpop([a, c, a, b, d], 0) == (b.encode(), b"b2")
        assert client.blpop([a, c, b, b, d], 0) == (b.encode(), b"b1")
        assert client.blmpop(0, 4, a, b, c, d, direction="LEFT", count=2) == [
            d.encode(), [b"d1", b"d2"],
        ]  # fmt: skip
        client.zadd(c, {"m": 1, "n": 2})
        assert client.bzpopmax([a, b, c], 0) == (c.encode(), b"n", 2)
        assert client.bzmpop(0, 3, [a, b, c], min=True) == [c.encode(), [[b"m", b"1"]]]
        assert number(running, "threadis_unwaited") == before + 6
        client.set(b, "text")
        with pytest.raises(Exception, match="WRONGTYPE"):
            client.blpop([a, b, d], 0)
        assert client.blpop([a, c, d, b], 0) == (d.encode(), b"d3")
        assert number(running, "threadis_unwaited") == before + 8
        assert client.blpop([a, c, d], 0.01) is None
        assert number(running, "threadis_locks") == 0


def test_whoever_waits_comes_first(running: Threadis) -> None:
    a, b, c, _ = KEYS
    with clients(running, 3) as (waiter, second, pusher):
        for count, one in enumerate((waiter, second)):
            one.send(command("BLPOP", a, b, c, "0"))
            until(lambda: number(running, "blocked_clients") == count + 1, "it waits")  # noqa: B023
        assert pusher.ask("RPUSH", b, "1", "2", "3") == b":3\r\n"
        assert [one.reply()[-4:] for one in (waiter, second)] == [b"\n1\r\n", b"\n2\r\n"]
        assert pusher.ask("BLPOP", a, c, b, "0").endswith(b"\n3\r\n")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_nothing_of_a_later_key_while_an_earlier_one_has_something(
    threadis: Start, workers: str
) -> None:
    """What is in the last key was put in the first before: nobody finds only what is in the last.

    Between the two are so many others that a pusher could feed both while they are looked at.
    """
    running = threadis("--instances", str(INSTANCES), "--workers", workers, "--save", "")
    first, last = KEYS[2], KEYS[0]
    keys = [first, *(f"{{{KEYS[at % 2 * 2 + 1]}}}{at}" for at in range(40)), last]
    is_enough = threading.Event()

    def feed() -> None:
        with running.client() as client:
            for at in itertools.takewhile(lambda _: not is_enough.is_set(), itertools.count()):
                client.rpush(first, at)
                client.rpush(last, at)

    pusher = threading.Thread(target=feed)
    seen: dict[bytes, set[bytes]] = {first.encode(): set(), last.encode(): set()}
    before = number(running, "threadis_unwaited")
    with running.client() as popper:
        pusher.start()
        try:
            while len(seen[last.encode()]) < 200:
                key, value = popper.brpop(keys, 10)  # the newest
                seen[key].add(value)
                assert key == first.encode() or value in seen[first.encode()]
        finally:
            is_enough.set()
            pusher.join()
    assert number(running, "threadis_unwaited") > before + 200  # it was not only served


def test_many_take_from_many(threadis: Start) -> None:
    """Each element goes to one of them, in the order of its key; afterwards nothing is locked."""
    running = threadis("--instances", str(INSTANCES), "--workers", "3", "--save", "")
    elements, poppers = 400, 8
    with running.client() as client:
        for key in KEYS:
            client.rpush(key, *range(elements))
    taken: list[list[tuple[bytes, int]]] = [[] for _ in range(poppers)]

    def take(who: int) -> None:
        order = KEYS[who % INSTANCES :] + KEYS[: who % INSTANCES]
        with running.client() as client:
            while found := client.blpop(order, 0.05):
                taken[who].append((found[0], int(found[1])))

    threads = [threading.Thread(target=take, args=(who,)) for who in range(poppers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Also with keys that clients of another worker have just locked.
    assert number(running, "threadis_unwaited") > elements
    everything = sorted(one for each in taken for one in each)
    assert everything == sorted((key.encode(), at) for key in KEYS for at in range(elements))
    for each in taken:
        for key in KEYS:
            own = [at for name, at in each if name == key.encode()]
            assert own == sorted(own)
    until(lambda: number(running, "threadis_locks") == 0, "nothing is locked")


def asks_the_hung_one(one: Raw, alien: Raw) -> None:
    """A client's command finds nothing in the first key, and asks an instance that hangs.

    Another client's, sent later, asks more instances, but not that one.
    """
    one.send(command("BLPOP", *KEYS[:3], "0"))
    assert alien.ask("RPUSH", OTHERS[3], "x") == b":1\r\n"
    assert alien.ask("BLPOP", OTHERS[0], OTHERS[2], OTHERS[3], "0").endswith(b"\nx\r\n")


def test_an_instance_that_hangs_costs_only_its_own_keys(running: Threadis) -> None:
    with clients(running, 2) as (its, alien):
        leaves_open_lanes(alien)
        with stopped(running.instance_pids()[1]):
            asks_the_hung_one(its, alien)
            for _ in range(3):
                alien.ask("RPUSH", OTHERS[2], "y")
                assert alien.ask("BLPOP", OTHERS[0], OTHERS[2], "0").endswith(b"\ny\r\n")
        assert its.reply().endswith(b"\nx\r\n")
        until(lambda: number(running, "threadis_locks") == 0, "nothing is locked")
        assert alien.ask("DBSIZE") == b":0\r\n"


def test_an_instance_that_dies_is_asked_again(running: Threadis) -> None:
    with clients(running, 2) as (its, other):
        leaves_open_lanes(other)
        pid = running.instance_pids()[1]
        os.kill(pid, signal.SIGSTOP)
        asks_the_hung_one(its, other)
        os.kill(pid, signal.SIGKILL)
        reply = its.reply()  # nothing was taken yet
        # On a busy machine it may be given up as one that does not answer before it is dead.
        refusals = (b"-TRYAGAIN instance 1 ", b"-ERR instance 1 did not answer")
        assert reply.endswith(b"\nx\r\n") or reply.startswith(refusals)
        assert its.ask("RPUSH", KEYS[0], "y") == b":1\r\n"
        until(lambda: number(running, "threadis_locks") == 0, "nothing is locked")
        assert its.ask("BLPOP", *KEYS[:3], "0").endswith(b"\ny\r\n")
        assert its.ask("EXISTS", KEYS[2]) == b":%d\r\n" % reply.startswith(b"-")


def test_nothing_is_taken_for_who_has_left(running: Threadis) -> None:
    with clients(running, 2) as (its, other):
        leaves_open_lanes(other)
        with stopped(running.instance_pids()[1]):
            asks_the_hung_one(its, other)
            its.socket.close()
            until(lambda: other.ask("CLIENT", "LIST").count(b" addr=") == 1, "it has left")
        until(lambda: number(running, "threadis_locks") == 0, "nothing is locked")
        until(lambda: all_are_ready(running), "every instance is there")
        assert other.ask("BLPOP", *KEYS[:3], "0").endswith(b"\nx\r\n")


def test_one_that_cannot_have_its_lock_is_the_coordinators(running: Threadis) -> None:
    """Something else is in flight to one of its instances, which hangs."""
    with clients(running, 3) as (reader, its, alien):
        alien.ask("RPUSH", KEYS[2], "x")
        with stopped(running.instance_pids()[1]):
            reader.send(command("GET", KEYS[1]))
            asks_the_hung_one(its, alien)
        assert its.reply().endswith(b"\nx\r\n")
        assert reader.reply() == b"$-1\r\n"
    until(lambda: number(running, "threadis_locks") == 0, "nothing is locked")
