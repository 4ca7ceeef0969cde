"""Scripts that feed keys for which others wait: nobody comes between, and the order is theirs."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_blocking import blocked
from differential.test_keyspace import spread
from differential.wire import Connection, pack, split
from waiting import until

pytestmark = pytest.mark.sample

A, B, C, D, E, *REST = spread("fed")  # A and E on one instance
ROUNDS: Final = 12  # with each, what came between was seen in most
PUSH: Final = "redis.call('RPUSH', %s, 1)"
FIRST, SECOND = PUSH % "KEYS[1]", PUSH % "KEYS[2]"
LIBRARY: Final = (
    "#!lua name=fed\nredis.register_function('fed', function(KEYS) "
    "return redis.call('RPUSH', KEYS[1], 1) end)"
)

# What runs, in how many commands, and the key that it feeds.
SCRIPTS: Final[dict[str, tuple[str, str]]] = {
    "declared": (f'EVAL "{FIRST}" 1 {A}', A),
    "begun with a key": (
        "EVAL \"redis.call('RPUSH', KEYS[1] .. ':jobs', 1)\" 1 {fed}q",
        "{fed}q:jobs",
    ),
    "of its key's group": (
        "EVAL \"redis.call('SET', KEYS[1], 1) redis.call('RPUSH', ARGV[1], 1)\" 1 {fed}q {fed}jobs",
        "{fed}jobs",
    ),
    "undeclared": (f'EVAL "{PUSH % "ARGV[1]"}" 0 {A}', A),
    "where another key lives": (f'EVAL "{PUSH % "ARGV[1]"}" 1 {B} {A}', A),
    "on several instances": (f'EVAL "{FIRST} {SECOND}" 2 {A} {B}', A),
    "listing keys": (f"EVAL \"redis.call('KEYS', '*') {FIRST}\" 1 {A}", A),
    "a function": (f"FCALL fed 1 {A}", A),
    "moves on": (f'EVAL "{FIRST}" 1 {B}', B),
    "in a transaction": (f'MULTI ; EVAL "{FIRST}" 1 {A} ; EXEC', A),
    "undeclared in a transaction": (f'MULTI ; EVAL "{PUSH % "ARGV[1]"}" 0 {A} ; EXEC', A),
    "with others in a transaction": (
        f'MULTI ; EVAL "{PUSH % "ARGV[1]"}" 0 {A} ; CONFIG SET maxmemory-samples 5 ; EXEC',
        A,
    ),
    "a push with others in a transaction": (
        f"MULTI ; RPUSH {A} x ; RPUSH {B} x ; CONFIG SET maxmemory-samples 5 ; EXEC",
        A,
    ),
    "of its group in a transaction": (
        "MULTI ; EVAL \"redis.call('RPUSH', KEYS[1] .. ':jobs', 1)\" 1 {fed}q ; EXEC",
        "{fed}q:jobs",
    ),
}
WAITS: Final = {"moves on": f"BLMOVE {B} {A} LEFT LEFT 0"}
# Keys in the order in which they are fed, and how.
ORDERS: Final = [
    (keys, how, wait)
    for keys in ([C, A, B], [B, C, A], [E, A])
    for how in ("declared", "undeclared", "declared in another order", "transaction", "deleting")
    for wait in ("BLPOP {} 0", "BLMPOP 0 {count} {} RIGHT", "BZPOPMIN {} 0", "XREAD BLOCK 0 {}")
]


@contextmanager
def waiting(pair: Pair, both: Both, command: str) -> Iterator[Both]:
    """A client on each side, which wait."""
    with pair.both() as other:
        for side in (other.bare, other.ours):
            side.send(pack(*split(command)))
            until(lambda: blocked(side, both) == 1, command)  # noqa: B023
        yield other
        bare, ours = other.bare.read(), other.ours.read()
        assert ours.raw == bare.raw, f"{command}: {ours.raw!r}, not {bare.raw!r}"


@pytest.fixture
def both(pair: Pair) -> Iterator[Both]:
    """Who feeds, on both sides."""
    with pair.both() as both:
        both.same("FLUSHALL")
        both.same("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        yield both
        both.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("look", ["LLEN", "LPOP", "TYPE"])
def test_its_own_client_sees_nothing_of_what_others_have_got(
    pair: Pair, both: Both, name: str, look: str
) -> None:
    script, key = SCRIPTS[name]
    commands = [split(line) for line in script.split(" ; ")]
    for _ in range(ROUNDS):
        with waiting(pair, both, WAITS.get(name, f"BLPOP {key} 0")):
            both.same_all([*commands, split(f"{look} {key}")])
        both.same("DEL", A, B, "{fed}q")


@pytest.mark.parametrize("name", SCRIPTS)
def test_nobody_comes_between(pair: Pair, both: Both, name: str) -> None:
    script, key = SCRIPTS[name]
    is_over = threading.Event()
    seen: list[bytes] = []

    def look(commands: list[list[bytes]]) -> None:
        connection = Connection(("127.0.0.1", pair.threadis.port))
        while not is_over.is_set():
            replies = connection.ask_all(commands)
            seen.extend(one.raw for one in replies if one.raw[:1] == b":" and one.raw != b":0\r\n")
        connection.close()

    looks = [f"LLEN {key}", f"DEL {key}", f"MULTI ; LLEN {key} ; EXEC", f"EXISTS {key} {C}"]
    with ExitStack() as stack:
        for line in looks:
            commands = [split(one) for one in line.split(" ; ")]
            thread = threading.Thread(target=look, args=[commands])
            thread.start()
            stack.callback(thread.join)
        stack.callback(is_over.set)
        for _ in range(ROUNDS):
            with waiting(pair, both, WAITS.get(name, f"BLPOP {key} 0")):
                for line in script.split(" ; "):
                    both.same(*split(line))
            both.same("DEL", A, B, "{fed}q")
    assert not seen


@pytest.mark.parametrize("kind", ["BLPOP", "XREAD"])
def test_who_waits_for_other_keys_goes_on_waiting(pair: Pair, both: Both, kind: str) -> None:
    wait = f"BLPOP {C} 0" if kind == "BLPOP" else f"XREAD BLOCK 0 STREAMS {C} $"
    feed = f"RPUSH {C} x" if kind == "BLPOP" else f"XADD {C} 1-1 f v"
    with waiting(pair, both, wait):
        for script, key in SCRIPTS.values():
            both.same_all([split(one) for one in script.split(" ; ")])
            both.same("DEL", key, A, B)
        both.same(*split(feed))


@pytest.mark.parametrize(("keys", "how", "wait"), ORDERS)
def test_the_first_key_that_is_fed(
    pair: Pair, both: Both, keys: list[str], how: str, wait: str
) -> None:
    feeds = {"Z": "'ZADD', {}, 1, 1", "X": "'XADD', {}, '9-1', 'f', 'v'"}
    feed = feeds.get("X" if wait.startswith("X") else wait[1], "'RPUSH', {}, 1")
    one = f"redis.call({feed.format('key')})"
    names = ", ".join(f"'{key}'" for key in keys)
    texts = {
        "declared": f'EVAL "for _, key in ipairs(KEYS) do {one} end"',
        "undeclared": f'EVAL "for _, key in ipairs({{{names}}}) do {one} end" 0',
        "deleting": f"EVAL \"for at = #KEYS, 1, -1 do redis.call('DEL', KEYS[at]) end "
        f'for _, key in ipairs(KEYS) do {one} end"',
    }
    declared = f"{len(keys)} {' '.join(keys)}"
    line = f"{texts['declared']} {declared}"
    if how == "declared in another order":
        line = f"{texts['undeclared'].removesuffix(' 0')} {len(keys)} {' '.join(sorted(keys))}"
    elif how == "undeclared":
        line = texts[how]
    elif how == "deleting":
        line = f"{texts[how]} {declared}"
    lines = ["MULTI", line, "EXEC"] if how == "transaction" else [line]
    listed = sorted(keys)
    words = f"{len(keys)} {' '.join(listed)}" if "count" in wait else " ".join(listed)
    if wait.startswith("X"):
        words = f"STREAMS {words} {' '.join('$' for _ in keys)}"
    command = wait.replace("{count} ", "").format(words)
    for _ in range(3):
        with waiting(pair, both, command):
            for one in lines:
                both.same(*split(one))
        both.same("DEL", *keys)


NAMED: Final = [
    "DEL {}", "PERSIST {}", "SET {} x EX 9", "EXPIRE {} 9", "LPUSHX {} x", "LMOVE no {} LEFT LEFT",
    "RPOPLPUSH no {}", "COPY no {}", "ZUNIONSTORE {} 1 no", "SORT no STORE {}", "SET {} x XX",
    "ZADD {} XX 1 x", "MSETNX {} 1 " + E, "RENAMENX no {}",
]  # fmt: skip


@pytest.mark.parametrize("first", NAMED)
@pytest.mark.parametrize("keys", [(A, A + "2"), (A, B), (C, A)])
def test_a_key_that_is_named_before_it_is_made(
    pair: Pair, both: Both, first: str, keys: tuple[str, str]
) -> None:
    """Who waits for both is given the one that was made first."""
    one, other = keys
    both.same("SET", E, "x")
    for wait, feed in ((f"BLPOP {one} {other} 0", "RPUSH"), (f"BZPOPMIN {one} {other} 0", "ZADD")):
        with waiting(pair, both, wait):
            for line in ("MULTI", first.format(other), f"DEL {other}", f"{feed} {one} 1 x",
                         f"{feed} {other} 2 y", "EXEC"):  # fmt: skip
                both.same(*split(line))
        both.same("DEL", *keys)
