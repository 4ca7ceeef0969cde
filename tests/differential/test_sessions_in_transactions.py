"""Commands about the client's own session between MULTI and EXEC, in every place among others."""

import re

import pytest

from differential.pair import Both, Pair
from differential.wire import split

pytestmark = pytest.mark.sample

# Keys of one instance, of several, and none, before and behind the command.
PLACES = [
    ([], []),
    ([], ["GET k2"]),
    (["SET a 1", "GET a"], []),
    (["SET a 1", "SET b 1", "GET c"], ["SET b 2", "MGET a b k2", "SET c 1"]),
    (["MSET a 1 b 2 c 3"], ["PUBLISH ch x", "PING"]),
]


def same_to_the_end(both: Both, *lines: str) -> None:
    """Send all in one pipeline, and compare every byte until the connection is closed."""
    for side in (both.bare, both.ours):
        side.send(b"".join(both.packed(*split(line)) for line in lines))
    assert both.ours.read_to_end() == both.bare.read_to_end()


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(
    "words",
    [
        ["CLIENT REPLY SKIP"], ["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING"],
        ["CLIENT REPLY OFF"], ["CLIENT REPLY OFF", "PING", "CLIENT REPLY ON"],
        ["CLIENT REPLY SKIP", "CLIENT REPLY OFF"], ["CLIENT REPLY SKIP", "CLIENT REPLY ON"],
        ["CLIENT REPLY ON"], ["CLIENT REPLY x"],
    ],
    ids=str,
)  # fmt: skip
def test_unwanted_replies(
    pair: Pair, protocol: int, words: list[str], place: tuple[list[str], list[str]]
) -> None:
    with pair.both(protocol) as both:
        lines = ["MULTI", *place[0], *words, *place[1], "EXEC"]
        same_to_the_end(both, *lines, "ECHO x", "GET k2", "CLIENT REPLY ON", "ECHO y", "QUIT")


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_who_ends_itself_hears_no_more(
    pair: Pair, protocol: int, place: tuple[list[str], list[str]]
) -> None:
    with pair.both(protocol) as both, pair.both() as other:
        ids = [side.ask("CLIENT", "ID").number for side in (both.bare, both.ours)]
        both.same("MULTI")
        for line in place[0]:
            both.same_line(line)
        for side, number in zip((both.bare, both.ours), ids, strict=True):
            words = (b"CLIENT", b"KILL", b"ID", b"%d" % number, b"SKIPME", b"no")
            assert side.ask(*words).raw == b"+QUEUED\r\n"
        for line in place[1]:
            both.same_line(line)
        for side in (both.bare, both.ours):
            side.send(both.packed("EXEC"))
        assert both.ours.read_to_end() == both.bare.read_to_end()
        other.same("MGET", "a", "b", "c", "k2")  # it was run to its end


EVENT = re.compile(rb">[34]\r\n\$\d+\r\np?message\r\n(?:\$\d+\r\n[^\r]*\r\n)+")
READING = [
    *PLACES[:2],
    (["SET a 1", "GET c"], []),
    (["SET a 1", "SET b 1", "GET c"], ["SET b 2", "MGET k1 k2", "SET c 1"]),
    ([], ["EVAL \"return redis.call('get','k2')\" 0"]),
    (["SET a 1"], ["EVAL \"return redis.call('get',KEYS[1])\" 1 k2", "SET b 1"]),
]


@pytest.mark.parametrize("place", READING, ids=str)
@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], ["CLIENT TRACKING ON"]),
        (["CLIENT TRACKING ON"], ["CLIENT TRACKING OFF", "CLIENT TRACKING ON"]),
        (["CLIENT TRACKING ON OPTIN"], ["CLIENT CACHING YES"]),
        (["CLIENT TRACKING ON OPTIN"], []),
        ([], ["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES"]),
        ([], ["CLIENT TRACKING ON BCAST PREFIX k"]),
        ([], ["CLIENT TRACKING ON BCAST PREFIX x"]),
        (["CLIENT TRACKING ON"], ["CLIENT TRACKING OFF"]),
        ([], ["CLIENT TRACKING OFF"]),
    ],
)  # fmt: skip
def test_what_is_read_behind_the_beginning_of_tracking_is_told(
    pair: Pair, before: list[str], words: list[str], place: tuple[list[str], list[str]]
) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        for line in (*before, "MULTI", *place[0], *words, *place[1], "EXEC"):
            reader.same_line(line)
        writer.same("SET", "k2", 1)
        same_to_the_end(reader, "GET k2", "QUIT")


@pytest.mark.parametrize("flags", ["", "KEA"])
@pytest.mark.parametrize("place", PLACES[1:], ids=str)
@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], ["SUBSCRIBE ch"]), ([], ["PSUBSCRIBE c*", "SUBSCRIBE x"]),
        (["SUBSCRIBE ch"], ["UNSUBSCRIBE ch"]), (["SUBSCRIBE ch"], ["UNSUBSCRIBE"]),
        (["PSUBSCRIBE c*"], ["SUBSCRIBE ch", "PUNSUBSCRIBE"]),
        ([], ["SUBSCRIBE ch", "UNSUBSCRIBE"]),
    ],
)  # fmt: skip
def test_who_subscribes_hears_what_is_published_behind_it(
    pair: Pair,
    before: list[str],
    words: list[str],
    place: tuple[list[str], list[str]],
    flags: str,
) -> None:
    with pair.both(3) as client, pair.both(3) as listener:
        client.same("CONFIG", "SET", "notify-keyspace-events", flags)
        listener.same("PSUBSCRIBE", "__keyevent*")
        lines = [*before, "MULTI", *place[0], *words, *place[1]]
        same_to_the_end(client, *lines, "PUBLISH ch hello", "EXEC", "PUBLISH ch later", "QUIT")
        with pair.both() as cleaner:
            cleaner.same("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.mark.parametrize("words", ["PSUBSCRIBE __keyevent*", "SUBSCRIBE __keyevent@0__:set"])
def test_who_subscribes_before_all_writes_hears_of_them(pair: Pair, words: str) -> None:
    with pair.both(3) as client, pair.both() as other:
        other.same("CONFIG", "SET", "notify-keyspace-events", "KEA")
        for side in (client.bare, client.ours):
            lines = ("MULTI", "GET q", words, "SET a 1", "SET b 1", "MSET c 1 d 2", "EXEC", "QUIT")
            side.send(b"".join(client.packed(*line.split()) for line in lines))
        ours, bare = (EVENT.findall(side.read_to_end()) for side in (client.ours, client.bare))
        other.same("CONFIG", "SET", "notify-keyspace-events", "")
        assert len(bare) == 4  # old servers push them into the middle of EXEC's reply
        assert ours == bare


LESS = "ACL SETUSER less on nopass ~b* +@all"


@pytest.mark.parametrize("words", ["HELLO 3", "HELLO 2", "AUTH less x", "HELLO 3 AUTH less x"])
def test_who_becomes_another_is_that_at_once(pair: Pair, protocol: int, words: str) -> None:
    with pair.both(protocol) as both, pair.both() as other:
        other.same_line(LESS)
        try:
            for side in (both.bare, both.ours):
                lines = ("MULTI", words, "SET a 1", "GET nothing", "GET b", "EXEC", "QUIT")
                side.send(b"".join(both.packed(*line.split()) for line in lines))
            ours, bare = (
                re.sub(rb"id\r\n:\d+", b"id", side.read_to_end()) for side in (both.ours, both.bare)
            )
            assert ours == bare
            other.same("MGET", "a", "b")
        finally:
            other.same("ACL", "DELUSER", "less")


@pytest.mark.parametrize("lines", [["{}", "SET a 1", "SET b 1"], ["SET a 1", "{}", "SET b 1"]])
def test_nobody_writes_with_the_rights_of_whom_he_was(pair: Pair, lines: list[str]) -> None:
    with pair.both() as both, pair.both() as other:
        other.same_line(LESS)
        try:
            for line in ("MULTI", *(line.format("AUTH less x") for line in lines)):
                both.same_line(line)
            refusal = both.ours.ask("EXEC")
            assert refusal.raw.startswith(b"-EXECABORT "), refusal.raw
            assert other.ours.ask("EXISTS", "a", "b").number == 0
        finally:
            other.same("ACL", "DELUSER", "less")
