"""Subscriptions under load and faults: many subscribers, slow ones, instances that come and go."""

import os
import re
import signal
import threading
from collections.abc import Callable

import pytest

from conftest import Threadis
from raw import Raw, command, keys_of
from waiting import until

SUBSCRIBERS = 1000
MESSAGES = 50


def message(channel: bytes, payload: bytes) -> bytes:
    return command(b"message", channel, payload)


def subscribed(port: int, channel: bytes) -> Raw:
    client = Raw(("127.0.0.1", port))
    client.ask("SUBSCRIBE", channel)
    return client


def test_a_thousand_subscribers_hear_everything_in_order(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "2")
    listeners = [subscribed(running.port, b"news") for _ in range(SUBSCRIBERS)]
    payloads = [b"%d" % number * 20 for number in range(MESSAGES)]
    with Raw(("127.0.0.1", running.port)) as speaker:
        speaker.send(b"".join(command("PUBLISH", "news", payload) for payload in payloads))
        for _ in payloads:
            assert speaker.reply() == b":%d\r\n" % SUBSCRIBERS
        expected = b"".join(message(b"news", payload) for payload in payloads)
        for listener in listeners:
            assert listener.exactly(len(expected)) == expected
            listener.socket.close()
        until(lambda: speaker.ask("PUBSUB", "CHANNELS") == b"*0\r\n", "all are forgotten")


def test_publishers_of_all_workers_are_heard_in_one_order(
    threadis: Callable[..., Threadis],
) -> None:
    running = threadis("--instances", "2", "--workers", "2")
    listeners = [subscribed(running.port, b"c") for _ in range(4)]

    def publish(name: str) -> None:
        with Raw(("127.0.0.1", running.port)) as speaker:
            for number in range(200):
                assert speaker.ask("PUBLISH", "c", f"{name}{number:03}") == b":4\r\n"

    threads = [threading.Thread(target=publish, args=(name,), daemon=True) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = [listener.exactly(800 * len(message(b"c", b"a000"))) for listener in listeners]
    assert heard[1:] == heard[:1] * 3
    for name in b"abcd":
        numbers = re.findall(rb"\r\n%c(\d+)" % name, heard[0])
        assert numbers == [b"%03d" % number for number in range(200)]
    for listener in listeners:
        listener.socket.close()


def test_a_subscriber_that_does_not_read_is_closed(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "1")
    with Raw(("127.0.0.1", running.port)) as speaker:
        limit = ("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
        assert speaker.ask(*limit) == b"+OK\r\n"
        slow = Raw(("127.0.0.1", running.port), receive_buffer=4096)
        slow.ask("SUBSCRIBE", "c")
        other = subscribed(running.port, b"c")
        count, sent = 2, 0
        while count == 2:
            count = int(speaker.ask("PUBLISH", "c", b"x" * 100_000)[1:])
            sent += 1
            assert sent < 1000
        expected = message(b"c", b"x" * 100_000)
        for _ in range(sent):
            assert other.exactly(len(expected)) == expected
        slow.socket.close()
        other.socket.close()


def test_keyspace_events_of_all_instances_also_after_restarts(
    threadis: Callable[..., Threadis],
) -> None:
    running = threadis("--instances", "3", "--workers", "2")
    with Raw(("127.0.0.1", running.port)) as speaker:
        assert speaker.ask("CONFIG", "SET", "notify-keyspace-events", "KEA") == b"+OK\r\n"
        listener = subscribed(running.port, b"__keyevent@0__:set")
        pattern = Raw(("127.0.0.1", running.port))
        pattern.ask("PSUBSCRIBE", "__keyspace@*__:*")

        def check(prefix: str) -> None:
            for instance in range(3):
                key = next(keys_of(instance, 3, prefix))
                assert speaker.ask("SET", key, "v") == b"+OK\r\n"
                assert listener.reply() == message(b"__keyevent@0__:set", key)
                channel = b"__keyspace@0__:" + key
                assert pattern.reply() == command(b"pmessage", b"__keyspace@*__:*", channel, b"set")

        check("before")
        for pid in running.instance_pids():
            os.kill(pid, signal.SIGKILL)
        until(lambda: all_answer(speaker), "the instances are back")
        check("after")
        listener.socket.close()
        pattern.socket.close()


def all_answer(client: Raw) -> bool:
    return client.ask("DBSIZE").startswith(b":")


def test_messages_do_not_land_inside_of_large_replies(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "1")
    with (
        Raw(("127.0.0.1", running.port)) as client,
        Raw(("127.0.0.1", running.port)) as speaker,
    ):
        size = 8 * 1024 * 1024
        speaker.ask("SET", "large", b"x" * size)
        client.send(command("HELLO", 3) + command("SUBSCRIBE", "c"))
        client.send(command("GET", "large") * 3)
        for _ in range(50):
            speaker.ask("PUBLISH", "c", "m")
        client.send(command("ECHO", "the end"))
        lines = [client.line()]
        while lines[-1] != b"the end\r\n":
            lines.append(client.line())
        value = b"$%d\r\n%s\r\n" % (size, b"x" * size)
        assert b"".join(lines).count(value) == 3


@pytest.mark.parametrize(
    ("how", "count"), [("SUBSCRIBE", 40_000), ("SSUBSCRIBE", 40_000), ("PSUBSCRIBE", 5_000)]
)
def test_who_leaves_with_many_subscriptions_costs_nobody_else_much(
    threadis: Callable[..., Threadis], how: str, count: int
) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--save", "")
    with running.client() as other:

        def upstream() -> int:
            return int(other.info("threadis")["threadis_upstream_subscriptions"])

        with Raw(("127.0.0.1", running.port)) as leaver:
            leaver.send(command(how, *(f"name:{number}" for number in range(count))))
            for _ in range(count):
                leaver.reply()
            assert upstream() == 2 * count
        # Clients time out after five seconds: nobody waits for all of it
        until(lambda: upstream() == 0, "the instances are unsubscribed")
        assert other.config_set("maxmemory-samples", 6)


@pytest.mark.parametrize(
    ("subscribe", "publish"),
    [("SUBSCRIBE", "PUBLISH"), ("PSUBSCRIBE", "PUBLISH"), ("SSUBSCRIBE", "SPUBLISH")],
)
def test_a_message_reaches_whoever_has_sent_a_subscription_before(
    threadis: Callable[..., Threadis], subscribe: str, publish: str
) -> None:
    """Also before the instances know of it: the confirmation comes first all the same."""
    running = threadis("--instances", "2", "--workers", "1")
    with Raw(("127.0.0.1", running.port)) as speaker, Raw(("127.0.0.1", running.port)) as listener:
        speaker.ask("PING")
        listener.ask("PING")
        for number in range(50):
            listener.send(command(subscribe, str(number)))
            assert speaker.ask(publish, str(number), "x") == b":1\r\n"
            assert subscribe.lower().encode() in listener.reply()
            assert b"message" in listener.reply()
