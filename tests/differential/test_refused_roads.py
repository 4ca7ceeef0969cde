"""Every road on which a restricted user is refused: the words, and what ACL LOG says of it."""

from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.wire import Connection, Reply

pytestmark = pytest.mark.sample

A, B, C, D = spread("r", each=1)  # on four instances; the user may read A, touch B, and no others
LIBRARY: Final = (
    "#!lua name=roads\n"
    "redis.register_function('ask', function(keys, args) return redis.pcall(unpack(args)) end)\n"
    "redis.register_function('may', function(keys, args)\n"
    "    return redis.acl_check_cmd(unpack(args)) and 1 or 0\nend)"
)
GET: Final = "return redis.pcall('get',ARGV[1])"
INCR: Final = "return redis.pcall('incr',ARGV[1])"
ROADS: Final[dict[str, list[tuple[str | int, ...]]]] = {
    "a key": [("GET", C)],
    "a key twice": [("GET", C), ("GET", C)],
    "a key to be written": [("SET", A, 1)],
    "a command": [("INCR", B)],
    "a subcommand": [("CONFIG", "GET", "x")],
    "several keys": [("MGET", A, B, C)],
    "several keys to be written": [("MSET", A, 1, B, 2)],
    "a channel": [("PUBLISH", "no", "x")],
    "subscriptions": [("SUBSCRIBE", "ch1", "no")],
    "patterns": [("PSUBSCRIBE", "*")],
    "a key in MULTI": [("MULTI",), ("GET", C), ("EXEC",)],
    "a command in MULTI": [("MULTI",), ("INCR", B), ("DISCARD",)],
    "several keys in MULTI": [("MULTI",), ("MSET", A, 1, B, 2), ("EXEC",)],
    "a script's key": [("EVAL", "return redis.call('get',KEYS[1])", 1, C)],
    "a key inside": [("EVAL", GET, 1, B, C)],
    "a command inside": [("EVAL", "return redis.pcall('incr',KEYS[1])", 1, B)],
    "several keys inside": [("EVAL", "return redis.pcall('set',KEYS[1],1)", 2, A, B)],
    "a message inside": [("EVAL", "return redis.pcall('publish','no','x')", 0)],
    "everything inside": [("EVAL", "return redis.call('flushall')", 0)],
    "everything inside, with a key": [("EVAL", "return redis.call('swapdb',0,1)", 1, B)],
    "everything inside, with several keys": [
        ("EVAL", "return redis.call('flushall')", 2, B, "ok1")
    ],
    "all keys inside": [("EVAL", "return redis.pcall('keys','*')", 2, B, "ok1")],
    "everything inside, caught": [
        ("EVAL", "redis.pcall('flushall') return redis.call('set',KEYS[1],5)", 2, "ok2", B),
    ],
    "everything of a function": [("FCALL", "ask", 2, B, "ok1", "flushall")],
    "a reading script": [("EVAL_RO", GET, 1, B, C)],
    "a function's command": [("FCALL", "ask", 1, B, "incr", B)],
    "a function's key": [("FCALL", "ask", 1, B, "get", C)],
    "several keys of a function": [("FCALL", "ask", 2, A, B, "get", C)],
    "a script in MULTI": [("MULTI",), ("EVAL", GET, 1, B, C), ("SET", "ok1", 1), ("EXEC",)],
    "a command, and keys that are found by trying": [
        ("EVAL", f"redis.pcall('incr','ok3') redis.pcall('get','ok4') {GET}", 2, B, "ok1", "ok2"),
        ("EVAL", f"redis.pcall('incr','ok3') redis.pcall('lpush','ok5',1) {GET}", 1, B, "ok6"),
        ("EVAL", f"redis.pcall('smove','ok8',ARGV[1],1) {INCR}", 0, "ok7"),
    ],
    "the same in MULTI": [
        ("MULTI",),
        ("SET", "ok1", 1),
        ("EVAL", f"redis.pcall('smove','ok8',ARGV[1],1) {INCR}", 1, B, "ok7"),
        ("EXEC",),
    ],
    "RENAME": [("RENAME", B, C)],
    "COPY": [("COPY", C, "ok1")],
    "SMOVE": [("SMOVE", B, C, "x")],
    "LMOVE": [("LMOVE", C, B, "LEFT", "LEFT")],
    "BLPOP": [("BLPOP", B, C, 1)],
    "SINTERSTORE": [("SINTERSTORE", "ok1", A, C)],
    "SORT": [("SORT", B, "STORE", C)],
    "XREAD": [("XREAD", "STREAMS", A, C, 0, 0)],
    "WATCH": [("WATCH", B, C)],
    "BITFIELD": [("BITFIELD", A, "SET", "u8", 0, 1)],
    "GEORADIUS": [("GEORADIUS", A, 1, 1, 1, "km", "STORE", C)],
    "AUTH": [("AUTH", "nobody", "x")],
    "HELLO": [("HELLO", 3, "AUTH", "nobody", "x")],
}


@pytest.fixture
def admin(pair: Pair) -> Iterator[Both]:
    """Who makes the restricted user, and reads the log."""
    with pair.both() as both:
        both.same("FUNCTION", "LOAD", LIBRARY)
        rules: tuple[str, ...] = (
            "on",
            "nopass",
            f"%R~{A}",
            f"~{B}",
            "~ok*",
            "&ch*",
            "+@all",
            "-incr",
            "-config",
        )
        rules = (*rules, "-flushall", "-swapdb", "-keys")
        both.same("ACL", "SETUSER", "restricted", *rules)
        both.same("ACL", "LOG", "RESET")
        yield both
        both.same("ACL", "DELUSER", "restricted")
        both.same("FUNCTION", "FLUSH")


def fields(entry: Reply) -> dict[str, Reply]:
    """An entry of ACL LOG."""
    names = [one.text.decode() for one in entry.elements[::2]]
    return dict(zip(names, entry.elements[1::2], strict=True))


def told(entry: Reply) -> list[bytes]:
    """What an entry says of the refusal."""
    found = fields(entry)
    count = b"%d" % found["count"].number
    return [count, *(found[name].text for name in ("reason", "context", "object", "username"))]


def client(side: Connection, entry: Reply | None = None) -> dict[str, str]:
    """Who a client is, or who was refused; without what changes all the time."""
    text = fields(entry)["client-info"].text if entry else side.ask("CLIENT", "INFO").text
    words = text.decode().removeprefix("txt:").split()  # as RESP3 begins a text
    shown = dict(word.split("=", 1) for word in words)
    return {name: shown[name] for name in ("id", "addr", "laddr", "fd", "name", "user", "resp")}


@pytest.mark.parametrize("road", ROADS)
def test_a_refusal_is_told_and_logged_as_by_one_server(
    pair: Pair, admin: Both, road: str, protocol: int
) -> None:
    with pair.both(protocol) as both:
        both.same("CLIENT", "SETNAME", "me")
        both.same("AUTH", "restricted", "x")
        whose = client(both.ours)
        for words in ROADS[road]:
            both.same(*words)
        bare, ours = (side.ask("ACL", "LOG", 10).elements for side in (admin.bare, admin.ours))
        assert [told(entry) for entry in ours] == [told(entry) for entry in bare]
        assert ours
        assert [client(admin.ours, entry) for entry in ours] == [whose] * len(ours)


@pytest.mark.parametrize("lost", ["-select", "-set", "~none"])
def test_what_is_lost_before_exec_is_logged_once(pair: Pair, admin: Both, lost: str) -> None:
    with pair.both() as both:
        both.same("AUTH", "restricted", "x")
        both.same("MULTI")
        for words in [("SET", "ok1", 1), ("SELECT", 1), ("SET", "ok2", 2)]:
            both.same(*words)
        admin.same("ACL", "SETUSER", "restricted", *(["resetkeys"] if lost[0] == "~" else []), lost)
        both.same("EXEC")
        bare, ours = (side.ask("ACL", "LOG", 10).elements for side in (admin.bare, admin.ours))
        assert sorted(map(told, ours)) == sorted(map(told, bare))


CHECKED: Final = [
    ("get", A), ("get", C), ("set", A, 1), ("set", B, 1), ("incr", B), ("del", A, B), ("ping",),
    ("mget", A, B), ("config", "get", "x"), ("nosuch",), ("get",),
]  # fmt: skip
SCRIPT: Final = "return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0"


@pytest.mark.parametrize("keys", [(), (A,), (A, B), (A, B, C)])
def test_scripts_and_functions_are_told_what_their_user_may(
    pair: Pair, admin: Both, keys: tuple[str, ...]
) -> None:
    """Also in a transaction, and on copies of keys of several instances."""
    with pair.both() as both:
        both.same("AUTH", "restricted", "x")
        for words in CHECKED:
            calls = [("FCALL", "may", len(keys), *keys, *words),
                     ("EVAL", SCRIPT, len(keys), *keys, *words)]  # fmt: skip
            for call in calls:
                both.same(*call)
            both.same("MULTI")
            for call in [*calls, ("SET", B, 1)]:
                both.same(*call)
            both.same("EXEC")
