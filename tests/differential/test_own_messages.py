"""A client in RESP3 hears of what it does itself where its server says so: older ones tell before
they answer, newer ones behind the answer.
"""

import pytest

from differential.pair import Pair
from differential.test_events import words_of
from differential.wire import Connection, pack

LINES = [
    "SET A 1", "INCR A", "PUBLISH ch x", "MSET A 1 B 2", "GET A", "DEL A B", "SADD A x",
    "SUNIONSTORE B A C", "RENAME B C", "COPY C D", "LMOVE none B LEFT LEFT", "FLUSHALL",
    "EVAL \"redis.call('SET', KEYS[1], 1) return redis.call('PUBLISH', 'ch', 'y')\" 1 A",
    "EVAL \"redis.call('SET', KEYS[1], 1) return redis.call('SET', KEYS[2], 1)\" 2 A B",
    "EVAL \"redis.call('PUBLISH', 'ch', 'y') return redis.call('SET', KEYS[2], 1)\" 2 A B",
    "MULTI", "SET A 1", "PUBLISH ch x", "SET B 1", "EXEC", "MULTI", "SET A 1", "PING", "INCR A",
    "EXEC", "MULTI", "SET A 1", "SET B 1", "EXEC", "RPUSH D 1", "LPOP D", "UNSUBSCRIBE ch",
    "PUBLISH ch x", "SET A 2",
]  # fmt: skip


END = b"$3\r\nend\r\n"


@pytest.mark.parametrize("times", range(3))
def test_what_it_hears_of_its_own_commands(pair: Pair, times: int) -> None:
    del times
    with pair.both(3) as both:
        both.same("CONFIG", "SET", "notify-keyspace-events", "KA")
        both.same("PSUBSCRIBE", "__key*")
        both.same("SUBSCRIBE", "ch")
        tells_first = answers(both.bare, [b"SET", b"x", b"1"])[0].startswith(b">")
        answers(both.ours, [b"SET", b"x", b"1"])
        for line in LINES:
            words = words_of(line)
            bare, ours = answers(both.bare, words), answers(both.ours, words)
            if tells_first and (line == "EXEC" or not bare[0].startswith(b">")):
                # In the middle of the answer, which nobody can read; or some commands' behind it.
                assert sorted(b"".join(ours)) == sorted(b"".join(bare)), line
                continue
            assert ours == bare, line
        both.same("CONFIG", "SET", "notify-keyspace-events", "")


def answers(side: Connection, words: list[bytes]) -> list[bytes]:
    """Everything that a command is answered, and what is told with it."""
    side.send(pack(*words))
    found = [side.read().raw]
    while found[-1].startswith(b">") and words[0] != b"UNSUBSCRIBE":
        found.append(side.read().raw)
    if words[0] != b"MULTI" and found[-1] != b"+QUEUED\r\n":
        side.send(pack("ECHO", "end"))
        while found[-1] != END:
            found.append(side.read().raw)
    return found
