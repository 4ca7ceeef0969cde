"""Clients that hear of keyspace events, one on each side."""

from differential.pair import Both, Pair
from differential.wire import Connection, pack


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
