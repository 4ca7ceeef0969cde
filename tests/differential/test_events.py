"""Keyspace events: subscribers hear what one server would tell them, in its order."""

from collections.abc import Iterator

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.wire import Connection, pack

NAMES = spread("e", 4)
END = "__keyspace@0__:end"


class Listener:
    """A client on each side that hears of all events."""

    def __init__(self, pair: Pair, protocol: int = 2, pattern: str = "__key*__:*") -> None:
        self._both = pair.both(protocol)
        for side in (self._both.bare, self._both.ours):
            for words in (("PSUBSCRIBE", pattern), ("SUBSCRIBE", "end")):
                side.send(pack(*words))
                side.read()

    def close(self) -> None:
        """Hang up."""
        self._both.__exit__()

    def since(self, main: Both) -> tuple[list[bytes], list[bytes]]:
        """What both sides have heard so far."""
        main.bare.ask("PUBLISH", "end", "x")
        main.ours.ask("PUBLISH", "end", "x")
        return heard(self._both.bare), heard(self._both.ours)

    def same(self, main: Both) -> list[bytes]:
        """The same on both sides."""
        bare, ours = self.since(main)
        assert ours == bare
        return ours


def heard(side: Connection) -> list[bytes]:
    found = []
    while (parts := [one.text for one in side.read().elements])[1] != b"end":
        found.append(b" ".join(parts[2:]))
    return found


@pytest.fixture
def main(pair: Pair) -> Iterator[Both]:
    """A client for whose commands there are events."""
    with pair.both() as both:
        both.same("CONFIG", "SET", "notify-keyspace-events", "KEA")
        yield both
        both.same("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.fixture
def listener(pair: Pair, main: Both) -> Iterator[Listener]:
    """Who hears of them."""
    del main
    listener = Listener(pair)
    yield listener
    listener.close()


def test_events_of_commands_that_wait_for_each_other_come_in_order(
    main: Both, listener: Listener
) -> None:
    for number in range(30):
        for key in NAMES:
            main.same("SET", key, number)
        listener.same(main)
    main.same("SET", NAMES[0], 1, "PX", 1)
    for key in NAMES:
        main.same("INCR", key, how="shape")
        main.same("LPUSH", f"list:{key}", 1, 2)
        main.same("RPOP", f"list:{key}")
        main.same("LPOP", f"list:{key}")
    listener.since(main)


def test_events_come_in_order_from_commands_of_several_clients(
    pair: Pair, main: Both, listener: Listener
) -> None:
    others = [pair.both() for _ in range(4)]
    for number in range(20):
        for at, key in enumerate(NAMES):
            others[at % 4].same("SET", key, number)
        listener.same(main)
    for other in others:
        other.__exit__()


def test_no_event_tells_of_hidden_databases(pair: Pair, main: Both, protocol: int) -> None:
    listener = Listener(pair, protocol, "*")
    pairs = [word for key in NAMES for word in (key, "1")]
    for words in (
        ["MSET", *pairs], ["DEL", *NAMES], ["MSET", *pairs], ["RENAME", *NAMES[:2]],
        ["EVAL", "return redis.call('MSET', unpack(ARGV))", len(NAMES), *NAMES, *pairs],
        ["UNLINK", *NAMES], ["SADD", NAMES[0], "x"], ["SUNIONSTORE", *NAMES[:3]],
    ):  # fmt: skip
        main.same(*words)
    _, ours = listener.since(main)
    assert all(b"@0__:" in event and b"threadis" not in event for event in ours), ours
    listener.close()
