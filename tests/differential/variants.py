"""Makes calls of a command from what the server documents of its arguments.

``COMMAND DOCS`` names each argument, its type and whether it is optional; from that come calls
that are plausible, and from those calls that are not. Every key has the same hash tag, so all of
them may go to one instance.
"""

import itertools
from collections.abc import Iterator
from typing import Any

KEYS = [b"{g}:" + name for name in (b"none", b"text", b"list", b"set", b"zset", b"hash", b"stream")]
FILL: list[list[bytes]] = [
    [b"FLUSHALL"],
    [b"SET", KEYS[1], b"12"],
    [b"RPUSH", KEYS[2], b"a", b"b", b"c"],
    [b"SADD", KEYS[3], b"1", b"2", b"3"],
    [b"ZADD", KEYS[4], b"1", b"a", b"2", b"b", b"3", b"c"],
    [b"HSET", KEYS[5], b"a", b"1", b"b", b"text"],
    [b"XADD", KEYS[6], b"1-1", b"a", b"b"],
    [b"XGROUP", b"CREATE", KEYS[6], b"g", b"0"],
]
VALUES = {
    "string": b"a",
    "integer": b"1",
    "double": b"1.5",
    "pattern": b"*",
    "unix-time": b"99999999999",
}
# How long a key is to live, whatever the unit: nothing may expire between one call and the next,
# which both servers reach at moments of their own.
LIFETIMES = ("seconds", "milliseconds", "ttl")
LIFETIME = b"100000"
ODD = (b"", b"x", b"-1", b"9223372036854775808", b"1 ", b"\r\n", b"\x00", b"1e400")

Docs = dict[str, Any]
Call = list[bytes]


def docs(raw: Any) -> Any:
    """COMMAND DOCS in RESP3, as hiredis reads it, with names as text."""
    if isinstance(raw, dict):
        return {docs(name): docs(value) for name, value in raw.items()}
    if isinstance(raw, (list, set)):
        return [docs(value) for value in raw]
    return raw.decode() if isinstance(raw, bytes) else raw


def calls(name: list[bytes], known: Docs, arity: int) -> Iterator[Call]:
    """Calls of a command: too short, plausible, with odd values, in odd case."""
    least = abs(arity)
    yield name
    yield [*name, *[b"a"] * max(least - len(name) - 1, 0)]
    yield [*name, *[b"a"] * (least - len(name))]
    yield [*name, *[b"a"] * (least - len(name) + 1)]
    yield [*name, *[b"1"] * 12]
    arguments = known.get("arguments", [])
    for one in KEYS:
        yield [*name, *_words(arguments, one, set(), 1)]
    plausible: list[Call] = []
    for first in KEYS[1::-1]:
        options = [number for number, one in enumerate(arguments) if "optional" in _flags(one)]
        for chosen in [*([number] for number in options), options]:
            plausible.extend(_alternatives(arguments, first, set(chosen)))
        plausible.append(_words(arguments, first, set(options), 2))
        plausible.append(_words(arguments, first, set(), 3))
    yield from ([*name, *words] for words in plausible)
    yield [word.swapcase() for word in name] + _words(arguments, KEYS[2], set(), 1)
    yield [word.title() for word in name] + _words(arguments, KEYS[4], set(), 1)
    yield from _odd([*name, *_words(arguments, KEYS[1], set(), 1)], len(name))
    if plausible:
        yield from _odd([*name, *max(plausible, key=len)], len(name))


def pieces(made: Iterator[Call], length: int) -> Iterator[list[Call]]:
    """The calls in pieces that each begin with FILL, ``length`` calls at most.

    ``GT`` of a lifetime compares it with the one set before: of equal ones the later ends later,
    by the milliseconds between them. So such a call begins a piece, where no key has a lifetime.
    """
    piece: list[Call] = []
    for call in made:
        if len(piece) == length or (b"GT" in call and LIFETIME in call):
            yield FILL + piece
            piece = []
        piece.append(call)
    yield FILL + piece


def _odd(call: Call, begin: int) -> Iterator[Call]:
    """The call with one word after the other replaced, left out, or said twice."""
    for at in range(begin, min(len(call), begin + 8)):
        if call[at] in KEYS:
            continue
        for odd in ODD:
            yield [*call[:at], odd, *call[at + 1 :]]
        yield [*call[:at], *call[at + 1 :]]
        yield [*call[: at + 1], *call[at:]]
    yield [*call, b"extra"]


def _flags(argument: Docs) -> list[str]:
    found: list[str] = argument.get("flags", [])
    return found


def _alternatives(arguments: list[Docs], key: bytes, chosen: set[int]) -> Iterator[Call]:
    """The words once for each branch of the first "one of" that is chosen."""
    for at in sorted(chosen):
        if arguments[at]["type"] == "oneof":
            for branch in arguments[at]["arguments"]:
                replaced = {**arguments[at], "arguments": [branch]}
                yield _words([*arguments[:at], replaced, *arguments[at + 1 :]], key, chosen, 1)
            return
    yield _words(arguments, key, chosen, 1)


def _words(arguments: list[Docs], key: bytes, chosen: set[int], times: int) -> Call:
    """The words of a call: what is required, and the options that are chosen."""
    return list(
        itertools.chain.from_iterable(
            _argument(argument, key, times)
            for number, argument in enumerate(arguments)
            if number in chosen or "optional" not in _flags(argument)
        )
    )


def _argument(argument: Docs, key: bytes, times: int) -> Call:
    kind, token = argument["type"], argument.get("token")
    if argument["name"] in ("numkeys", "numfields"):
        return [b"%d" % times]
    said = [] if token is None else [token.encode()]
    if kind == "pure-token":
        return said
    if kind == "oneof":
        words = _argument(argument["arguments"][0], key, times)
    elif kind == "block":
        words = _words(argument["arguments"], key, set(), 1)
    elif kind == "key":
        words = [key]
    elif argument["name"] in LIFETIMES:
        words = [LIFETIME]
    else:
        words = [VALUES.get(kind, b"a")]
    if "multiple" not in _flags(argument):
        return said + words
    if "multiple_token" in _flags(argument):
        return (said + words) * times
    return said + words * times
