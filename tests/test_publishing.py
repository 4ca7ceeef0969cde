"""What is published reaches whoever has sent SUBSCRIBE before, whichever workers have the two."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Threadis
from raw import Address, Raw, bare_server, command, keys_of
from threadis.supervisor.server import ServerBinary

ROUNDS = 200
PAIRS = 16  # enough for every worker to have some: newcomers spread when many come at once

KINDS = {
    "channels": ("SUBSCRIBE", "PUBLISH", "c%d"),
    "patterns": ("PSUBSCRIBE", "PUBLISH", "[c]%d"),
    "sharded channels": ("SSUBSCRIBE", "SPUBLISH", "c%d"),
}


@contextlib.contextmanager
def clients(address: Address) -> Iterator[tuple[list[Raw], list[Raw]]]:
    """Listeners, who are subscribed to something and so stay where they are, and speakers."""
    with contextlib.ExitStack() as stack:
        everyone = [stack.enter_context(Raw(address)) for _ in range(2 * PAIRS)]
        for client in everyone[::2]:
            client.ask("SUBSCRIBE", "base")
        for client in everyone[1::2]:
            client.ask("PING")
        yield everyone[::2], everyone[1::2]


def pairs(listeners: list[Raw], speakers: list[Raw]) -> Iterator[tuple[int, Raw, Raw]]:
    for number in range(ROUNDS):
        yield number, listeners[number % PAIRS], speakers[number // PAIRS * 3 % PAIRS]


def publish(speaker: Raw, *words: str) -> bytes:
    return speaker.ask(*words)


def publish_in_a_transaction(speaker: Raw, *words: str) -> bytes:
    speaker.send(command("MULTI") + command(*words) + command("EXEC"))
    assert [speaker.reply() for _ in "12"] == [b"+OK\r\n", b"+QUEUED\r\n"]
    return speaker.reply().removeprefix(b"*1\r\n")


def publish_in_a_script(speaker: Raw, *words: str) -> bytes:
    """A script is told how many servers listen, which are ours: only whether anybody does."""
    script = "return redis.call(ARGV[1], ARGV[2], ARGV[3])"
    reply = speaker.ask("EVAL", script, 0, *words)
    assert reply[:1] == b":"
    return b""


WAYS = [publish, publish_in_a_transaction, publish_in_a_script]
Way = Callable[..., bytes]


def heard_first(address: Address, kind: str, way: Way) -> list[tuple[bytes, ...]]:
    """For each channel: how many receive it, and what its first subscriber reads.

    The stock server itself may read the two clients in either order: it is waited for (`feed`).
    """
    subscribe, verb, name = KINDS[kind]
    with clients(address) as (listeners, speakers):
        found: list[tuple[bytes, ...]] = []
        for number, listener, speaker in pairs(listeners, speakers):
            listener.feed([command(subscribe, name % number)])
            count = way(speaker, verb, f"c{number}", "x")
            found.append((count, listener.reply(), listener.ask("PING")))
            if b"message" in found[-1][2]:
                listener.reply()  # the PONG
            listener.ask(subscribe.replace("SUB", "UNSUB"), name % number)
        return found


def heard_later(address: Address, kind: str, way: Way) -> list[tuple[bytes, ...]]:
    """The same for who subscribes to what others listen to already."""
    subscribe, verb, name = KINDS[kind]
    with clients(address) as (listeners, speakers), clients(address) as (others, _):
        for other in others:
            other.ask(subscribe, name % 7)
        found: list[tuple[bytes, ...]] = []
        for _, listener, speaker in pairs(listeners, speakers):
            listener.feed([command(subscribe, name % 7)])
            count = way(speaker, verb, "c7", "x")
            found.append((count, listener.reply(), listener.ask("PING")))
            if b"message" in found[-1][2]:
                listener.reply()
            listener.ask(subscribe.replace("SUB", "UNSUB"), name % 7)
        return found


def spread_over(running: Threadis, workers: int) -> bool:
    info = running.client().info("threadis")
    return all(info[f"worker{index}"]["clients"] for index in range(workers))


@pytest.mark.sample
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("workers", [2, 3])
def test_who_has_sent_a_subscription_hears_what_is_published_later(
    threadis: Callable[..., Threadis],
    stock_server: ServerBinary,
    tmp_path: Path,
    workers: int,
    way: Way,
) -> None:
    flags = ("--server", stock_server.path, "--instances", "2", "--save", "")
    running = threadis(*flags, "--workers", str(workers))
    ours = ("127.0.0.1", running.port)
    with bare_server(stock_server.path, tmp_path) as bare, clients(ours):  # of those who follow
        for kind, heard in itertools.product(KINDS, (heard_first, heard_later)):
            expected, found = heard(bare, kind, way), heard(ours, kind, way)
            assert all(b"message" in words[2] for words in expected)
            lost = sum(b"message" not in words[2] for words in found)
            assert lost == 0, f"{lost} of {ROUNDS} were lost: {kind}, {heard.__name__}"
            assert found == expected
        assert spread_over(running, workers)


def write(speaker: Raw, key: str) -> None:
    assert speaker.ask("SET", key, 1) == b"+OK\r\n"


def write_in_a_transaction(speaker: Raw, key: str) -> None:
    speaker.send(command("MULTI") + command("SET", key, 1) + command("EXEC"))
    for expected in (b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n"):
        assert speaker.reply() == expected


def write_in_a_script(speaker: Raw, key: str) -> None:
    assert speaker.ask("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, key) == b"+OK\r\n"


def write_in_a_queued_script(speaker: Raw, key: str) -> None:
    script = "return redis.call('SET', KEYS[1], 1)"
    speaker.send(command("MULTI") + command("EVAL", script, 1, key) + command("EXEC"))
    for expected in (b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n"):
        assert speaker.reply() == expected


def write_on_several(speaker: Raw, key: str) -> None:
    assert speaker.ask("MSET", key, 1, "a", 1, "b", 1, "c", 1) == b"+OK\r\n"


def write_much(speaker: Raw, key: str) -> None:
    assert speaker.ask("SET", key, "x" * 200_000) == b"+OK\r\n"


def miss(speaker: Raw, key: str) -> None:
    assert speaker.ask("GET", key) == b"$-1\r\n"


CHANGES = [
    write, write_in_a_transaction, write_in_a_script, write_in_a_queued_script, write_on_several,
    write_much, miss,
]  # fmt: skip
NAMES_OF_EVENTS = {
    "first channel": ("SUBSCRIBE", "__keyspace@0__:k%d"),
    "first pattern": ("PSUBSCRIBE", "__key*@0__:k%d"),
    "known channel": ("SUBSCRIBE", "__keyspace@0__:k7"),
}


def events_heard(address: Address, kind: str, change: Callable[[Raw, str], None]) -> list[bytes]:
    """What each listener reads behind its confirmation."""
    subscribe, name = NAMES_OF_EVENTS[kind]
    is_known = "%" not in name
    with clients(address) as (listeners, speakers), Raw(address) as other:
        other.ask("CONFIG", "SET", "notify-keyspace-events", "Km" if change is miss else "KA")
        if is_known:
            other.ask(subscribe, name)
        found: list[bytes] = []
        for number, listener, speaker in pairs(listeners, speakers):
            words = subscribe, name if is_known else name % number
            listener.feed([command(*words)])
            change(speaker, "k7" if is_known else f"k{number}")
            assert b"subscribe" in listener.reply()
            found.append(listener.ask("PING"))
            if b"message" in found[-1]:
                listener.reply()  # the PONG
            listener.ask(subscribe.replace("SUB", "UNSUB"), words[1])
        speakers[0].ask("FLUSHALL")
        return found


def test_an_instance_that_is_stopped_holds_up_nobody_who_writes(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    flags = ("--server", stock_server.path, "--instances", "2", "--save", "", "--workers", "2")
    running = threadis(*flags)
    address, stopped = ("127.0.0.1", running.port), running.instance_pids()[1]
    with Raw(address) as speaker, Raw(address) as listener:
        speaker.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
        keys = list(itertools.islice(keys_of(0, 2), 50))
        for key in keys:
            assert speaker.ask("SET", key, 1) == b"+OK\r\n"
        os.kill(stopped, signal.SIGSTOP)
        try:
            for key in keys:
                listener.send(command("SUBSCRIBE", b"__keyspace@0__:" + key))
                assert speaker.ask("SET", key, 2) == b"+OK\r\n"
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert b"subscribe" in listener.reply()


@pytest.mark.sample
@pytest.mark.parametrize("change", CHANGES)
def test_who_has_sent_a_subscription_hears_of_what_is_changed_later(
    threadis: Callable[..., Threadis],
    stock_server: ServerBinary,
    tmp_path: Path,
    change: Callable[[Raw, str], None],
) -> None:
    flags = ("--server", stock_server.path, "--instances", "2", "--save", "", "--workers", "2")
    running = threadis(*flags)
    ours = ("127.0.0.1", running.port)
    with bare_server(stock_server.path, tmp_path) as bare, clients(ours):  # of those who follow
        for kind in NAMES_OF_EVENTS:
            expected, found = events_heard(bare, kind, change), events_heard(ours, kind, change)
            assert all(b"message" in words for words in expected)
            lost = sum(b"message" not in words for words in found)
            assert lost == 0, f"{lost} of {ROUNDS} were lost: {kind}"
            assert found == expected
        assert spread_over(running, 2)
