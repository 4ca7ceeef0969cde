"""MULTI, EXEC, DISCARD, WATCH, UNWATCH: over one instance and over several."""

from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

pytestmark = pytest.mark.sample

KEYS: Final = spread("t", each=1)
A, B, C, D = KEYS
Line = tuple[str | int, ...]

PROGRAMS: Final[dict[str, list[Line]]] = {
    "one instance": [
        ("MULTI",), ("SET", A, 1), ("INCR", A), ("GET", A), ("EXEC",), ("GET", A),
    ],
    "several instances": [
        ("MULTI",), ("SET", A, 1), ("SET", B, 2), ("MGET", *KEYS), ("INCR", A), ("EXEC",),
    ],
    "errors stay in place": [
        ("MULTI",), ("SET", A, "x"), ("INCR", A), ("SET", B, "y"), ("LPUSH", B, 1), ("EXEC",),
        ("MGET", *KEYS), ("MULTI",), ("INCR", A), ("GET", A), ("EXEC",),
    ],
    "scripts with wrong numbers of keys": [
        line
        for script in ((), (("EVAL", "return redis.call('INCR', KEYS[1])", 1, A),))
        for number in (-1, "x", 9, "1.5", "")
        for line in (
            ("MULTI",), ("SET", B, number), ("EVAL", "return 1", number), *script,
            ("EVALSHA", "0" * 40, number), ("FCALL", "f", number), ("EXEC",), ("MGET", A, B),
        )
    ],
    "empty": [("MULTI",), ("EXEC",), ("MULTI",), ("DISCARD",)],
    "out of order": [
        ("EXEC",), ("DISCARD",), ("MULTI",), ("MULTI",), ("WATCH", A), ("SET", A, 1), ("EXEC",),
        ("GET", A),
    ],
    "unknown command": [("MULTI",), ("SET", A, 1), ("NOSUCH", 1), ("EXEC",), ("GET", A)],
    "wrong arity": [("MULTI",), ("SET", A), ("SET", B, 1), ("EXEC",), ("EXEC",)],
    "unknown subcommand": [("MULTI",), ("CONFIG", "NOSUCH"), ("EXEC",)],
    "exec with arguments": [("MULTI",), ("SET", A, 1), ("EXEC", 1), ("EXEC",), ("GET", A)],
    "discard": [("MULTI",), ("SET", A, 1), ("DISCARD",), ("GET", A), ("SET", A, 2)],
    "select inside": [
        ("MULTI",), ("SET", A, 1), ("SELECT", 2), ("SET", A, 2), ("SET", B, 2), ("EXEC",),
        ("MGET", A, B), ("SELECT", 0), ("MGET", A, B), ("MULTI",), ("SELECT", 99), ("EXEC",),
    ],
    "session inside": [
        ("MULTI",), ("PING",), ("ECHO", "x"), ("CLIENT", "GETNAME"), ("DBSIZE",), ("SET", A, 1),
        ("DBSIZE",), ("SET", B, 1), ("DBSIZE",), ("EXEC",),
    ],
    "keyspace inside": [
        ("MSET", A, 1, B, 2), ("MULTI",), ("DBSIZE",), ("FLUSHALL",), ("DBSIZE",), ("SET", A, 1),
        ("SWAPDB", 0, 1), ("DBSIZE",), ("EXEC",), ("DBSIZE",), ("SWAPDB", 0, 1), ("DBSIZE",),
        ("SWAPDB", 0, 16), ("SWAPDB", 0, 17), ("SWAPDB", 0, "x"), ("SWAPDB", "x", 0),
    ],
    "move inside": [
        ("SET", A, 1), ("SET", B, 1), ("MULTI",), ("MOVE", A, 3), ("SUNION", C, D),
        ("COPY", B, A, "DB", 3), ("EXEC",), ("SELECT", 3), ("MGET", A, B),
    ],
    "watch nobody": [
        ("WATCH", A, B), ("MULTI",), ("SET", A, 1), ("SET", C, 1), ("EXEC",), ("WATCH", A),
        ("UNWATCH",), ("UNWATCH",), ("WATCH", A), ("MULTI",), ("EXEC",),
    ],
    "watch what oneself writes": [
        ("WATCH", A, B), ("SET", A, 2), ("MULTI",), ("SET", C, 1), ("EXEC",), ("GET", C),
        ("WATCH", A), ("SET", A, 2), ("MULTI",), ("SET", A, 1), ("EXEC",), ("GET", A),
        ("WATCH", A), ("SET", A, 2), ("UNWATCH",), ("MULTI",), ("SET", A, 1), ("EXEC",),
        ("WATCH", A), ("SET", A, 2), ("MULTI",), ("DISCARD",), ("MULTI",), ("EXEC",),
        ("WATCH", A), ("SET", A, 2), ("MULTI",), ("NOSUCH",), ("EXEC",), ("MULTI",), ("EXEC",),
        ("WATCH", A), ("SET", A, 2), ("MULTI",), ("SELECT", 1), ("EXEC",),
        ("WATCH", A), ("FLUSHALL",), ("MULTI",), ("SET", A, 1), ("EXEC",),
    ],
    "watch in two databases": [
        ("WATCH", A), ("SELECT", 1), ("WATCH", A), ("SET", B, 1), ("MULTI",), ("SET", A, 1),
        ("EXEC",), ("WATCH", A), ("SELECT", 0), ("SET", A, 5), ("MULTI",), ("GET", A), ("EXEC",),
        ("SELECT", 1), ("WATCH", A), ("SELECT", 0), ("DEL", A), ("MULTI",), ("GET", A), ("EXEC",),
    ],
    "reset": [("WATCH", A), ("MULTI",), ("SET", A, 1), ("RESET",), ("EXEC",), ("GET", A)],
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_program(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        for words in PROGRAMS[name]:
            both.same(*words)


# Not "reset": it changes the protocol of what follows.
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "reset"])
def test_program_in_one_pipeline(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        lines = PROGRAMS[name]
        both.same_all([[str(word).encode() for word in words] for words in lines])


@pytest.mark.parametrize("watched", [[A], [A, B], KEYS])
@pytest.mark.parametrize("written", [[A], [B], [A, B, C]])
@pytest.mark.parametrize("other", [A, B, "elsewhere"])
def test_another_client_writes(
    pair: Pair, protocol: int, watched: list[str], written: list[str], other: str
) -> None:
    with pair.both(protocol) as both, pair.both() as others:
        both.same("WATCH", *watched)
        others.same("SET", other, "changed")
        both.same("MULTI")
        for key in written:
            both.same("SET", key, "mine")
        both.same("EXEC")
        both.same("MGET", *KEYS)


def test_a_watch_ends_with_its_client(pair: Pair) -> None:
    with pair.both() as both:
        both.same("WATCH", *KEYS)
        both.same("MULTI")
        both.same("SET", A, 1)
    with pair.both() as both:
        both.same("GET", A)
        both.same("MULTI")
        both.same("SET", A, 1)
        both.same("EXEC")
