"""Clients that wait: many of them, clients that vanish, instances that restart."""

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from raw import keys_of, owner
from waiting import until

MANY = 10_000 if os.environ.get("THREADIS_TORTURE") == "full" else 1_000
OPENED: list[Connection] = []  # closed after each test
Start = Callable[..., Threadis]


@pytest.fixture
def running(threadis: Start) -> Iterator[Threadis]:
    """Four instances; afterwards nobody waits."""
    started = threadis("--instances", "4", "--save", "")
    yield started
    for connection in OPENED:
        connection.close()
    OPENED.clear()
    until(lambda: info(started, "blocked_clients") == 0, "nobody waits")


def connect(running: Threadis) -> Connection:
    """One more client."""
    OPENED.append(Connection(("127.0.0.1", running.port)))
    return OPENED[-1]


def info(running: Threadis, name: str) -> int:
    """A number of INFO."""
    connection = connect(running)
    text = connection.ask("INFO", "everything").text.decode()
    connection.close()
    return int(re.findall(rf"^{name}:(\d+)", text, re.MULTILINE)[0])


def waits(running: Threadis, *words: str) -> Connection:
    """A client that waits."""
    before = info(running, "blocked_clients")
    connection = connect(running)
    connection.send(pack(*words))
    until(lambda: info(running, "blocked_clients") == before + 1, "it waits")
    return connection


def test_an_element_is_never_popped_for_who_has_left(running: Threadis) -> None:
    pusher = connect(running)
    for leave in ("close", "half", "reset"):
        first = waits(running, "BLPOP", "a", "b", "0")
        second = waits(running, "BLPOP", "b", "0")
        if leave == "close":
            first.close()
        elif leave == "half":
            first.socket.shutdown(socket.SHUT_WR)
            assert first.read_to_end() == b""
        else:
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            first.close()
        until(lambda: info(running, "blocked_clients") == 1, "the first has left")
        assert pusher.ask("RPUSH", "b", "x").number == 1
        assert second.read().elements[1].text == b"x"
        second.close()
    assert pusher.ask("DBSIZE").number == 0


def test_a_push_is_not_undone_by_a_move_that_cannot_be(running: Threadis) -> None:
    """What has run is answered as such, whatever becomes of those who wait for it."""
    source, target = (next(keys_of(index, 4)).decode() for index in (0, 1))
    waiter = waits(running, "BLMOVE", source, target, "LEFT", "RIGHT", "0")
    pushing: dict[str, list[tuple[str, ...]]] = {
        "1": [("LPUSH", source, "1")],
        "2": [("MULTI",), ("LPUSH", source, "2"), ("LPUSH", target[::-1], "2"), ("EXEC",)],
    }
    client = connect(running)
    with stopped(running.process.pid):  # it starts no other
        os.kill(running.instance_pids()[1], signal.SIGKILL)
        move = ("LMOVE", target, f"{{{source}}}", "LEFT", "LEFT")  # by way of the coordinator
        until(lambda: b"cannot be reached" in client.ask(*move).raw, "it is gone")
        for element, commands in pushing.items():
            replies = [client.ask(*words).raw for words in commands]
            is_there = element in client.ask("LRANGE", source, "0", "-1").raw.decode().split()
            assert is_there != (b"was not run" in replies[-1]), replies
    if client.ask("LLEN", source).number == 0:
        client.ask("LPUSH", source, "3")
    assert not waiter.read().raw.startswith(b"-")


def test_what_is_there_is_not_waited_for(running: Threadis) -> None:
    """Its instance gives it at once; but whoever waits for it comes first."""
    client = connect(running)
    there: list[tuple[str, ...]] = [
        ("RPUSH", "a", "1", "2", "3"), ("ZADD", "z", "1", "m"), ("XADD", "x", "1-1", "f", "v"),
    ]  # fmt: skip
    taken: list[tuple[str, ...]] = [
        ("BLPOP", "a", "0"), ("BRPOP", "{a}", "a", "0"), ("BZPOPMIN", "z", "0"),
        ("BLMOVE", "a", "{a}", "LEFT", "LEFT", "0"), ("XREAD", "BLOCK", "0", "STREAMS", "x", "0"),
    ]  # fmt: skip
    for words in there:
        client.ask(*words)
    before = info(running, "threadis_unwaited")
    for words in taken:
        assert not client.ask(*words).raw.startswith((b"-", b"*-"))
    assert info(running, "threadis_unwaited") == before + 5
    waiter = waits(running, "BLPOP", "a", "0")
    later = waits(running, "BLPOP", "a", "0")
    client.ask("RPUSH", "a", "1", "2", "3")
    assert [one.read().raw[-4:] for one in (waiter, later)] == [b"\n1\r\n", b"\n2\r\n"]
    assert client.ask("BLPOP", "a", "0").raw.endswith(b"\n3\r\n")
    assert info(running, "threadis_unwaited") == before + 6


def test_who_still_tries_came_before(running: Threadis) -> None:
    """A client that needs the coordinator does not overtake one whose instance hangs."""
    key = next(keys_of(0, 4)).decode()
    elsewhere = next(keys_of(1, 4)).decode()
    first, second, other = (connect(running) for _ in range(3))
    with stopped(running.instance_pids()[0]):
        for client, words in ((first, (key,)), (second, (key, elsewhere))):
            client.send(pack("BLPOP", *words, "0"))
            assert other.ask("PING").raw == b"+PONG\r\n"  # it was taken
    until(lambda: info(running, "blocked_clients") == 2, "both wait")
    assert other.ask("RPUSH", key, "1", "2").number == 2
    assert [one.read().elements[1].text for one in (first, second)] == [b"1", b"2"]


@pytest.mark.parametrize("end", ["DEL x", "SET x text", "RENAME x {x}", "FLUSHALL"])
def test_a_group_that_still_tries_hears_of_its_end(running: Threadis, end: str) -> None:
    """What comes later ends its wait, as if it waited already."""
    reader, ender, other = (connect(running) for _ in range(3))
    assert other.ask("XGROUP", "CREATE", "x", "g", "$", "MKSTREAM").raw == b"+OK\r\n"
    words = ("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "x", ">")
    with stopped(running.instance_pids()[owner(b"x", 4)]):
        for client, command in ((reader, words), (ender, end.split())):
            client.send(pack(*command))
            assert other.ask("PING").raw == b"+PONG\r\n"  # it was taken
    assert reader.read().raw == b"-UNBLOCKED the stream key no longer exists\r\n"
    assert ender.read().raw == (b":1\r\n" if end == "DEL x" else b"+OK\r\n")


def test_unblock(running: Threadis) -> None:
    other = connect(running)
    for words in (["BLPOP", "a", "b", "0"], ["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]):
        waiting = connect(running)
        number = waiting.ask("CLIENT", "ID").number
        assert other.ask("CLIENT", "UNBLOCK", number).number == 0
        for reason, reply in (
            ("TIMEOUT", b"*-1\r\n"),
            ("ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
        ):
            waiting.send(pack(*words))
            until(lambda: info(running, "blocked_clients") == 1, "it waits")
            assert other.ask("CLIENT", "UNBLOCK", number, reason).number == 1
            assert waiting.read().raw == reply
        waiting.close()


def test_a_killed_client_waits_no_more(running: Threadis) -> None:
    other, waiting = connect(running), connect(running)
    number = waiting.ask("CLIENT", "ID").number
    waiting.send(pack("BLPOP", "a", "0"))
    until(lambda: info(running, "blocked_clients") == 1, "it waits")
    assert other.ask("CLIENT", "KILL", "ID", number).number == 1
    until(lambda: info(running, "blocked_clients") == 0, "it is gone")
    assert other.ask("RPUSH", "a", "x").number == 1
    assert other.ask("LLEN", "a").number == 1


def test_timeouts_are_met(running: Threadis) -> None:
    waiting = connect(running)
    for seconds in (0.05, 0.2):
        began = time.monotonic()
        assert waiting.ask("BLPOP", "a", "b", seconds).raw == b"*-1\r\n"
        assert seconds <= time.monotonic() - began < seconds + 1


def test_waiting_outlives_an_instance(running: Threadis) -> None:
    keys = [f"k{number}" for number in range(12)]  # of all instances
    clients = [waits(running, "BLPOP", key, "0") for key in keys]
    pids = [int(pid) for pid in re.findall(r"pid=(\d+)", own_section(running))]
    assert len(pids) == 4
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    def are_back() -> bool:
        section = own_section(running)
        now = map(int, re.findall(r"pid=(\d+)", section))
        return section.count("state=ready") == 4 and not set(pids).intersection(now)

    until(are_back, "all are back")
    until(lambda: info(running, "threadis_armed_keys") == len(keys), "all are armed again")
    assert info(running, "blocked_clients") == len(keys)
    pusher = connect(running)
    for key, client in zip(keys, clients, strict=True):
        until(lambda: not pusher.ask("LLEN", key).is_error, "its lanes are open again")  # noqa: B023
        script = "return redis.call('rpush', KEYS[1], 'x')"
        assert pusher.ask("EVAL", script, 1, key).number == 1
        assert client.read().elements[1].text == b"x"
        client.close()


def own_section(running: Threadis) -> str:
    """INFO threadis."""
    connection = connect(running)
    text = connection.ask("INFO", "threadis").text.decode()
    connection.close()
    return text


@pytest.mark.torture
def test_many_wait(running: Threadis) -> None:
    count = min(MANY, (descriptors() - 500) // 2)
    lanes = info(running, "threadis_lanes")
    clients = [connect(running) for _ in range(count)]
    for number, client in enumerate(clients):  # half of them for one key
        client.send(pack("BLPOP", "all" if number % 2 else f"own:{number}", "0"))
        if number < 200:  # their order counts; two workers may read two clients in either order
            until(lambda: info(running, "blocked_clients") > number, "it waits")  # noqa: B023
    until(lambda: info(running, "blocked_clients") == count, "all wait", 60)
    pusher = connect(running)
    assert pusher.ask("SET", "other", "1").raw == b"+OK\r\n"
    connections = sum(int(found) for found in re.findall(r"connected=(\d+)", own_section(running)))
    assert connections < 200
    assert info(running, "threadis_lanes") <= lanes + 10
    for number in range(0, count, count // 20):
        at = number - number % 2
        assert pusher.ask("RPUSH", f"own:{at}", "x").number == 1
        assert clients[at].read().elements[0].text == f"own:{at}".encode()
    assert pusher.ask("RPUSH", "all", *range(100)).number == 100
    served = [clients[1 + 2 * turn].read().elements[1].text for turn in range(100)]
    assert served == [b"%d" % turn for turn in range(100)]  # in the order in which they came
    for client in clients:
        client.close()
    until(lambda: info(running, "blocked_clients") == 0, "all have left", 60)


def descriptors() -> int:
    """How many files this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
