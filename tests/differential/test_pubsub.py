"""Subscriptions and messages: the same bytes as the bare server."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from differential.pair import Both, Pair
from differential.wire import Connection
from waiting import until


def read_same(both: Both, count: int = 1) -> list[bytes]:
    """The next so many messages of both."""
    bare = [both.bare.read().raw for _ in range(count)]
    ours = [both.ours.read().raw for _ in range(count)]
    assert ours == bare
    return ours


def same_count(both: Both, count: int, *words: str | bytes) -> None:
    """A command that is answered with so many confirmations."""
    both.bare.send(both.packed(*words))
    both.ours.send(both.packed(*words))
    read_same(both, count)


@contextmanager
def two(pair: Pair, protocol: int) -> Iterator[tuple[Both, Both]]:
    with pair.both(protocol) as one, pair.both(protocol) as other:
        yield one, other


def test_subscribing_and_leaving(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for count, line in (
            (2, "SUBSCRIBE a b"), (2, "SUBSCRIBE a a"), (1, "PSUBSCRIBE a*"), (1, "ssubscribe s"),
            (1, "SUNSUBSCRIBE s"), (1, "SUNSUBSCRIBE"), (1, "UNSUBSCRIBE nothing"),
            (2, "UNSUBSCRIBE a a"), (1, "PUNSUBSCRIBE"), (1, "UNSUBSCRIBE b"),
            (1, "UNSUBSCRIBE"), (1, "PUNSUBSCRIBE x"), (1, "SUNSUBSCRIBE"), (1, "PING"),
            (1, "SUBSCRIBE"), (1, "PUBLISH a"), (1, "PUBSUB"), (1, "PUBSUB WHAT"),
            (1, "PUBSUB NUMSUB"), (1, "PUBSUB SHARDNUMSUB a"), (1, "PUBSUB NUMPAT x"),
            (1, "PUBSUB CHANNELS a b"), (1, "PUBSUB CHANNELS"), (1, "PUBSUB HELP"),
        ):  # fmt: skip
            same_count(both, count, *line.split())


def test_what_a_subscriber_may_do(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        same_count(both, 1, "SUBSCRIBE", "c")
        for line in (
            "PING", "PING hello", "PING a b", "GET a", "SET a b", "ECHO x", "CLIENT GETNAME",
            "PUBLISH nobody x", "WHAT", "GET", "SELECT 1", "ECHO", "PUBSUB NUMSUB c d",
        ):  # fmt: skip
            both.same_line(f"= {line}")
        same_count(both, 1, "SUBSCRIBE", "d")
        both.same("RESET")
        both.same("PUBSUB", "CHANNELS")
        both.same("GET", "a")
        both.same("QUIT")


@pytest.mark.parametrize("word", ["subscribe", "psubscribe", "ssubscribe"])
def test_all_subscriptions_end_in_one_order(pair: Pair, word: str) -> None:
    """That of subscription, as Valkey's of a few; else a server's is that of its hash table."""
    for count in (5, 50):
        names = [b"%d" % number for number in range(count, 0, -1)]
        with pair.both() as both:
            same_count(both, count, word, *names)
            for side in (both.bare, both.ours):
                side.send(both.packed(word.replace("sub", "unsub")))
            bare = [both.bare.read().elements[1].text for _ in names]
            ours = [both.ours.read().elements[1].text for _ in names]
            assert ours == names
            assert bare == ours if pair.server.kind == "valkey" and count == 5 else sorted(bare)


def test_messages(pair: Pair, protocol: int) -> None:
    with two(pair, protocol) as (listener, speaker):
        same_count(listener, 2, "SUBSCRIBE", "news.art", b"\x00\r\n")
        speaker.same("PUBLISH", "news.art", "one")
        speaker.same("PUBLISH", "news", "nobody")
        speaker.same("PUBLISH", b"\x00\r\n", b"\r\n+x\r\n")
        speaker.same("SPUBLISH", "news.art", "nobody")
        read_same(listener, 2)
        same_count(listener, 1, "PSUBSCRIBE", "news.*")
        speaker.same("PUBLISH", "news.art", "two")
        speaker.same("PUBLISH", "news.x", "")
        read_same(listener, 3)
        same_count(listener, 1, "SSUBSCRIBE", "news.art")
        speaker.same("SPUBLISH", "news.art", "three")
        read_same(listener)
        for line in ("NUMSUB news.art x", "SHARDNUMSUB news.art", "NUMPAT", "CHANNELS news*",
                     "SHARDCHANNELS", "CHANNELS [a-m]*"):  # fmt: skip
            speaker.same("PUBSUB", *line.split())
        same_count(listener, 1, "UNSUBSCRIBE", "news.art")
        speaker.same("PUBLISH", "news.art", "only the pattern")
        read_same(listener)


def test_patterns(pair: Pair) -> None:
    patterns = ["*", "a*", "?b", "[ab]c", "[^a]c", "[c-a]d", "a\\*", "h[", "*b*", "ab", "\\a"]
    channels = ["a", "ab", "bb", "ac", "cc", "bd", "a*", "ax", "hb", "h[", "xbx", "]"]
    with two(pair, 2) as (listener, speaker):
        for pattern in patterns:
            same_count(listener, 1, "PSUBSCRIBE", pattern)
            for channel in channels:
                if speaker.same("PUBLISH", channel, pattern).number:
                    read_same(listener)
            same_count(listener, 1, "PUNSUBSCRIBE", pattern)


def test_publishing_to_oneself(pair: Pair) -> None:
    with pair.both(3) as both:
        same_count(both, 1, "SUBSCRIBE", "me")
        same_count(both, 2, "PUBLISH", "me", "x")
        same_count(both, 2, "PUBLISH", "me", "y")
        same_count(both, 1, "SSUBSCRIBE", "me")
        same_count(both, 2, "SPUBLISH", "me", "y")
        same_count(both, 1, "UNSUBSCRIBE")
        both.same("PUBLISH", "me", "nobody")


def test_publishing_to_oneself_in_a_script(pair: Pair) -> None:
    script = """
        redis.call("PUBLISH", "me", "x")
        redis.call("PUBLISH", "me", "y")
        for i = 1, 1000000 do end  -- the messages are there long before the reply
        return "done"
    """
    with pair.both(3) as both:
        same_count(both, 1, "SUBSCRIBE", "me")
        for side in (both.bare, both.ours):
            side.send(both.packed("EVAL", script, 0))
        bare = [both.bare.read().raw for _ in range(3)]
        ours = [both.ours.read().raw for _ in range(3)]
        if bare[0].startswith(b">"):  # an old server does not let them wait; nor need we
            bare, ours = sorted(bare), sorted(ours)
        assert ours == bare


def test_changing_the_protocol_while_subscribed(pair: Pair) -> None:
    with two(pair, 3) as (listener, speaker):
        same_count(listener, 1, "SUBSCRIBE", "c")
        for side in (listener.bare, listener.ours):
            side.ask("HELLO", 2)
        speaker.same("PUBLISH", "c", "two")
        read_same(listener)
        listener.same("GET", "x")
        listener.same("PING")


def test_in_transactions(pair: Pair, protocol: int) -> None:
    with two(pair, protocol) as (client, listener):
        same_count(listener, 1, "SUBSCRIBE", "c")
        for line in ("MULTI", "SET a 1", "PUBLISH c one", "SPUBLISH c no", "GET a", "EXEC"):
            client.same_line(line)
        read_same(listener)
        for line in ("MULTI", "SUBSCRIBE d", "PUBLISH d x", "EXEC"):
            client.same_line(line)
        if protocol == 2:
            client.same("GET", "a")


def test_publishing_to_oneself_in_a_transaction(pair: Pair) -> None:
    with pair.both(3) as both:
        for words in (["PUBLISH foo x"] * 2, ["UNSUBSCRIBE foo", "PUBLISH foo x"]):
            same_count(both, 1, "SUBSCRIBE", "foo")
            for line in ("MULTI", "PING abc", *words, "PING def"):
                both.same_line(line)
            messages = 0 if "UNSUBSCRIBE foo" in words else 2
            same_count(both, 1 + messages, "EXEC")  # old servers push into EXEC's own reply
        both.same("PING")


def test_a_pipeline_is_answered_in_order(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        lines = ["SET a 1", "GET a", "SUBSCRIBE c", "PING x", "UNSUBSCRIBE c", "GET a", "PING"]
        data = b"".join(both.packed(*line.split()) for line in lines)
        both.bare.send(data)
        both.ours.send(data)
        read_same(both, len(lines))


def test_clients_are_listed_as_subscribers(pair: Pair) -> None:
    fields = re.compile(rb"flags=P| (?:sub|psub|ssub)=\d+")
    with two(pair, 2) as (listener, other):
        same_count(listener, 2, "SUBSCRIBE", "a", "b")
        same_count(listener, 1, "PSUBSCRIBE", "p*")
        found = [
            fields.findall(side.ask("CLIENT", "LIST", "TYPE", "pubsub").raw)
            for side in (other.bare, other.ours)
        ]
        assert found[0] == found[1] != []


def test_counts_of_info(pair: Pair) -> None:
    wanted = re.compile(rb"^(pubsub\w+):(\d+)", re.M)
    with two(pair, 2) as (listener, other):
        same_count(listener, 2, "SUBSCRIBE", "a", "b")
        same_count(listener, 1, "PSUBSCRIBE", "p*")
        same_count(listener, 1, "SSUBSCRIBE", "s")

        def counts() -> list[list[tuple[bytes, bytes]]]:
            return [wanted.findall(side.ask("INFO").raw) for side in (other.bare, other.ours)]

        until(lambda: counts()[0] == counts()[1], "the same counts")
        assert (b"pubsub_channels", b"2") in counts()[1]


def test_limits_of_slow_subscribers_are_read_as_the_server_reads_them(pair: Pair) -> None:
    name = "client-output-buffer-limit"
    with pair.both() as both:
        for value in (
            "pubsub 32mb 8mb 60", "slave 1gb 1k 5", "normal 0 0 0", "pubsub 1 2", "what 1 2 3",
            "pubsub x 2 3", "pubsub 1 2 x", "pubsub 1 2 -1", "", "master 1 2 3",
            "normal 0 0 0 replica 256mb 64mb 60 pubsub 33554432 8388608 60",
        ):  # fmt: skip
            both.same("CONFIG", "SET", name, value)
            if "Wrong number" not in value:
                listed = [side.ask("CONFIG", "GET", name) for side in (both.bare, both.ours)]
                if not value.startswith("pubsub"):
                    assert listed[1].raw == listed[0].raw


def test_nothing_is_left_of_those_who_leave(pair: Pair) -> None:
    with pair.both() as both, ExitStack() as stack:
        others = [stack.enter_context(pair.both(3)) for _ in range(5)]
        for number, other in enumerate(others):
            same_count(other, 2, "SUBSCRIBE", "shared", f"own{number}")
            same_count(other, 1, "PSUBSCRIBE", "p*")
        both.same("PUBSUB", "NUMSUB", "shared")
        assert upstream(both.ours) == 7 * 4
        others[0].same("RESET")
        both.same("PUBSUB", "NUMSUB", "shared", "own0", "own1")
        stack.close()
        until(lambda: both.ours.ask("PUBSUB", "CHANNELS").raw == b"*0\r\n", "no channel is left")
        until(lambda: both.ours.ask("PUBSUB", "NUMPAT").raw == b":0\r\n", "no pattern is left")
        until(lambda: upstream(both.ours) == 0, "the instances are told")


def upstream(connection: Connection) -> int:
    """How many subscriptions the instances have."""
    info = connection.ask("INFO", "threadis").text
    found = re.search(rb"threadis_upstream_subscriptions:(\d+)", info)
    assert found
    return int(found[1])


@pytest.mark.parametrize(
    "lines",
    [
        ["SSUBSCRIBE a b a"], ["SUBSCRIBE a", "SSUBSCRIBE b", "PSUBSCRIBE c*", "PING"],
        ["SSUBSCRIBE b", "SUNSUBSCRIBE", "SET a 1"], ["SUNSUBSCRIBE x", "UNSUBSCRIBE"],
    ],
)  # fmt: skip
def test_subscribing_in_a_transaction(pair: Pair, protocol: int, lines: list[str]) -> None:
    with pair.both(protocol) as both:
        for line in ("MULTI", *lines, "EXEC", "PUBSUB SHARDCHANNELS", "PUBSUB CHANNELS", "QUIT"):
            for side in (both.bare, both.ours):
                side.send(both.packed(*line.split()))
        assert both.ours.read_to_end() == both.bare.read_to_end()
