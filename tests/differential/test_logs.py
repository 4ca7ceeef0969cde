"""SLOWLOG and COMMANDLOG have what instances see in parts or not at all: once, as it was sent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from differential.pair import Both, Pair
from differential.wire import Connection, Word, split

MANY = 2000  # keys: each part of a command takes longer than SLOW
SLOW = 5  # microseconds
LARGE = 1000  # bytes
KEYS = [f"k:{number}" for number in range(MANY)]
FEW = KEYS[:8]  # on all instances
LONG = "v" * 300
KINDS = ("large-request", "large-reply")
ABSENT = [f"absent:{number}" + "-" * 20 for number in range(60)]
LIBRARY = "#!lua name=l\n redis.register_function('f', function() return 1 end)"
VALUES: list[Word] = [word for key in FEW for word in (key, LONG)]


def entries(side: Connection, *words: Word) -> list[tuple[int, list[bytes], bytes, bytes]]:
    """Amount, words, address and name, oldest first."""
    found = side.ask(*words).elements[::-1]
    return [
        (
            one.elements[2].number,
            [word.text for word in one.elements[3].elements],
            one.elements[4].text,
            one.elements[5].text,
        )
        for one in found
    ]


def address(side: Connection) -> bytes:
    """How the server calls a client."""
    lines = side.ask("CLIENT", "LIST").text.splitlines()
    line = next(line for line in lines if b" name=who " in line)
    return next(word for word in line.split() if word.startswith(b"addr="))[5:]


@contextmanager
def settings(both: Both, **values: int) -> Iterator[None]:
    """Both with these directives."""
    names = [name.replace("_", "-") for name in values]
    before = [both.bare.ask("CONFIG", "GET", name).elements[1].text for name in names]
    for name, value in zip(names, values.values(), strict=True):
        both.same("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        for name, old in zip(names, before, strict=True):
            both.same("CONFIG", "SET", name, old)


SLOW_ONES: list[list[Word]] = [
    ["MSET", *(word for key in KEYS for word in (key, "v"))], ["MGET", *KEYS],
    ["EXISTS", *KEYS], ["TOUCH", *KEYS], ["KEYS", "k:*"],
    ["MULTI"], ["MGET", *KEYS[1:]], ["EXISTS", *KEYS[1:]], ["EXEC"],
    ["MULTI"], ["MGET", *KEYS[2:]], ["PING"], ["EXEC"],
    ["WATCH", "w"], ["MULTI"], ["MGET", *KEYS[3:]], ["EXEC"],
    ["DEL", *KEYS[:-1]], ["MGET", *KEYS[4:]], ["UNLINK", *KEYS],
]  # fmt: skip


def test_a_slow_command_over_several_instances_is_in_the_slowlog_once(pair: Pair) -> None:
    names = {b"MSET", b"MGET", b"EXISTS", b"TOUCH", b"KEYS", b"DEL", b"UNLINK"}
    found = []
    with pair.both() as both:
        both.same("CLIENT", "SETNAME", "who")
        with settings(both, slowlog_log_slower_than=SLOW):
            for side in (both.bare, both.ours):
                side.ask("FLUSHALL")
                side.ask("SLOWLOG", "RESET")
                began = time.monotonic()
                for words in SLOW_ONES:
                    assert not side.ask(*words).is_error
                took = (time.monotonic() - began) * 1_000_000
                logged = [one for one in entries(side, "SLOWLOG", "GET", -1) if one[1][0] in names]
                assert all(SLOW <= one[0] <= took for one in logged)
                assert not [one for one in logged if one[2:] != (address(side), b"who")]
                found.append(sorted(one[1] for one in logged))
    assert found[1] == found[0]
    assert len(found[0]) == 12


LARGE_ONES: list[list[Word]] = [
    ["MSET", *VALUES], ["MGET", *FEW], ["MGET", *FEW, *ABSENT],
    ["SADD", "s1", *ABSENT[:20]], ["SADD", "s2", *ABSENT[20:40]], ["SADD", "s3", *ABSENT[40:]],
    ["SUNION", "s1", "s2", "s3"], ["SUNIONSTORE", "d", "s1", "s2", "s3"],
    ["MULTI"], ["SET", "k:1", LONG * 5], ["GET", "k:2"], ["MGET", *FEW], ["SET", "k:3", 1],
    ["EXEC"],
    ["MULTI"], ["MSET", *VALUES], ["SUNION", "s1", "s2", "s3"], ["PING"], ["EXEC"],
    ["MULTI"], ["GET", "k:1"], ["MGET", *FEW], ["PING"], ["MGET", *FEW], ["EXEC"],
    ["WATCH", "k:1"], ["MULTI"], ["SET", "k:1", LONG * 5], ["MGET", *FEW], ["EXEC"],
    ["EVAL", "return redis.call('MGET',unpack(KEYS))", len(FEW), *FEW],
    ["EVAL", "return string.rep('x',3000)", 0], ["ECHO", LONG * 5], ["PING", LONG * 5],
    ["PUBLISH", "c", LONG * 5], ["PUBSUB", "NUMSUB", *ABSENT], ["KEYS", "*" * LARGE], ["KEYS", "*"],
    ["RPUSH", "l" * LARGE, LONG * 5], ["BLPOP", *ABSENT, "l" * LARGE, 0],
    ["BLPOP", "l", *ABSENT, 0.01], ["EXISTS", *ABSENT], ["TOUCH", *ABSENT],
    ["RENAME", "k:0", "n" * LARGE], ["COPY", "n" * LARGE, "k:0"], ["MGET", "k:0", "n" * LARGE],
    ["MSETNX", *VALUES], ["DEL", *FEW, *ABSENT], ["UNLINK", *FEW, *ABSENT],
    ["LPUSH", "d", *ABSENT], ["FUNCTION", "LOAD", LIBRARY + " " * LARGE],
    ["FUNCTION", "DELETE", "l"], ["SUBSCRIBE", *ABSENT[:1], "c" * LARGE],
]  # fmt: skip


def test_large_requests_and_replies_are_in_the_commandlog_once(pair: Pair) -> None:
    if pair.server.kind != "valkey":
        return  # Redis has none
    with (
        pair.both() as both,
        pair.both() as client,
        settings(both, commandlog_request_larger_than=LARGE, commandlog_reply_larger_than=LARGE),
    ):
        found = []
        for side, other in ((both.bare, client.bare), (both.ours, client.ours)):
            side.ask("FLUSHALL")
            for kind in KINDS:
                side.ask("COMMANDLOG", "RESET", kind)
            other.ask("CLIENT", "SETNAME", "who")
            for words in LARGE_ONES:
                other.ask(*words)
            where = address(side)
            logged = [
                (kind, *one)
                for kind in KINDS
                for one in entries(side, "COMMANDLOG", "GET", -1, kind)
                if one[1][0] != b"COMMANDLOG"
            ]
            # Of shared lanes nobody knows the client.
            assert {one[3:] for one in logged} <= {(where, b"who"), (b"?:0", b"")}
            found.append(sorted(one[:3] for one in logged))
            assert side.ask("COMMANDLOG", "LEN", "large-request").number == len(
                entries(side, "COMMANDLOG", "GET", -1, "large-request")
            )
        bare, ours = found
        assert ours == bare, ([one for one in bare if one not in ours], [
            one for one in ours if one not in bare])  # fmt: skip


def test_what_has_waited_is_in_the_logs(pair: Pair) -> None:
    line = split("BLPOP a b c 0.05")
    with pair.both() as both:
        found = []
        with settings(both, slowlog_log_slower_than=0):
            for side in (both.bare, both.ours):
                side.ask("SLOWLOG", "RESET")
                assert side.ask(*line).raw == b"*-1\r\n"
                found.append([one[1] for one in entries(side, "SLOWLOG", "GET", -1)].count(line))
        assert found[1] == found[0]
        assert found[0] == (1 if pair.server.kind == "valkey" else 0)


def test_what_did_not_run_is_not_in_the_slowlog(pair: Pair) -> None:
    with pair.both() as both, pair.both() as other:
        found = []
        with settings(both, slowlog_log_slower_than=0):
            for side, second in ((both.bare, other.bare), (both.ours, other.ours)):
                side.ask("FLUSHALL")
                side.ask("WATCH", "w")
                second.ask("SET", "w", 1)
                side.ask("SLOWLOG", "RESET")
                for line in ("MULTI", "SET a 1", "SET b 2", "EXEC", "MULTI", "NOSUCH", "EXEC"):
                    side.ask(*line.split())
                side.ask("CONFIG", "SET", "maxmemory", 1)
                side.ask("MSET", *VALUES)
                side.ask("SUNIONSTORE", *FEW)
                side.ask("CONFIG", "SET", "maxmemory", 0)
                logged = [one[1] for one in entries(side, "SLOWLOG", "GET", -1)]
                found.append(sorted(words for words in logged if words[0] != b"SLOWLOG"))
        assert found[1] == found[0]
