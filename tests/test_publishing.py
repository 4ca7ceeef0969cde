"""What is published reaches whoever has sent SUBSCRIBE before, whichever workers have the two."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Threadis
from raw import Address, Raw, bare_server, command
from threadis.server import Server

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
    """For each channel: how many receive it, and what its first subscriber reads."""
    subscribe, verb, name = KINDS[kind]
    with clients(address) as (listeners, speakers):
        found: list[tuple[bytes, ...]] = []
        for number, listener, speaker in pairs(listeners, speakers):
            listener.send(command(subscribe, name % number))
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
            listener.send(command(subscribe, name % 7))
            count = way(speaker, verb, "c7", "x")
            found.append((count, listener.reply(), listener.ask("PING")))
            if b"message" in found[-1][2]:
                listener.reply()
            listener.ask(subscribe.replace("SUB", "UNSUB"), name % 7)
        return found


def spread_over(running: Threadis, workers: int) -> bool:
    info = running.client().info("threadis")
    return all(info[f"worker{index}"]["clients"] for index in range(workers))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("workers", [2, 3])
def test_who_has_sent_a_subscription_hears_what_is_published_later(
    threadis: Callable[..., Threadis], stock_server: Server, tmp_path: Path, workers: int, way: Way
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
