"""CLIENT commands: who is listed and killed, who waits for a pause, who is not answered."""

from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.wire import Connection, pack
from waiting import until

REFUSED = [
    "CLIENT KILL", "CLIENT KILL id 10 wrong", "CLIENT KILL id 0", "CLIENT KILL id -1",
    "CLIENT KILL type what", "CLIENT KILL user nobody", "CLIENT KILL skipme maybe",
    "CLIENT KILL skipme yes skipme", "CLIENT KILL 1.2.3.4:5", "CLIENT KILL id", "CLIENT KILL addr",
    "CLIENT KILL addr 1.2.3.4:5", "CLIENT KILL laddr 1.2.3.4:5", "CLIENT KILL id 999999",
    "CLIENT KILL foo bar", "CLIENT KILL maxage x", "CLIENT KILL maxage 0", "CLIENT KILL name x",
    "CLIENT KILL not-id 0", "CLIENT LIST skipme x", "CLIENT LIST maxage x", "CLIENT LIST maxage 0",
    "CLIENT LIST flags Z", "CLIENT LIST not-flags Z", "CLIENT LIST idle x", "CLIENT LIST idle -1",
    "CLIENT LIST db x", "CLIENT LIST not-db x", "CLIENT LIST db 99", "CLIENT LIST capa x",
    "CLIENT LIST not-capa x", "CLIENT LIST ip 1.2.3.4", "CLIENT LIST foo", "CLIENT LIST addr",
    "CLIENT LIST id 1 foo 2", "CLIENT LIST not-maxage 3", "CLIENT LIST not-user nobody",
    "CLIENT LIST user nobody", "CLIENT LIST type pubsub", "CLIENT LIST id 3x",
    "CLIENT PAUSE", "CLIENT PAUSE x", "CLIENT PAUSE -1", "CLIENT PAUSE 1 x",
    "CLIENT PAUSE 99999999999999999999", "CLIENT UNPAUSE",
    "CLIENT PAUSE 0", "CLIENT UNPAUSE x", "CLIENT UNBLOCK", "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 1 x", "CLIENT UNBLOCK 999999", "CLIENT UNBLOCK 999999 error",
    "CLIENT REPLY x", "CLIENT REPLY", "CLIENT CAPA x", "CLIENT CAPA", "CLIENT IMPORT-SOURCE on",
    "CLIENT IMPORT-SOURCE off", "CLIENT HELP", "CLIENT NOPE",
]  # fmt: skip


def test_words(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in REFUSED:
            both.same_line(f"= {line}")


def test_kill_and_list(pair: Pair) -> None:
    mine, other, third = pair.ours(), pair.ours(), pair.ours()
    numbers = [one.ask("CLIENT", "ID").number for one in (mine, other, third)]
    address = "{}:{}".format(*other.socket.getsockname())
    assert mine.ask("CLIENT", "KILL", address).raw == b"+OK\r\n"
    assert other.read_to_end() == b""
    assert mine.ask("CLIENT", "LIST", "ID", numbers[1]).text == b""
    assert mine.ask("CLIENT", "KILL", "ID", numbers[2]).number == 1
    assert third.read_to_end() == b""
    assert mine.ask("CLIENT", "KILL", "ID", numbers[0]).number == 0
    mine.send(pack("CLIENT", "KILL", "ID", numbers[0], "SKIPME", "no") + pack("PING"))
    assert mine.read().number == 1
    assert mine.read_to_end() == b""
    for one in (mine, other, third):
        one.close()


def test_kill_everyone_counts_them(pair: Pair) -> None:
    others = [pair.ours() for _ in range(5)]
    for one in others:
        one.ask("PING")
    mine = pair.ours()
    assert mine.ask("CLIENT", "KILL", "SKIPME", "yes").number >= len(others)
    assert b"connected_clients:1\r\n" in mine.ask("INFO", "clients").text
    assert mine.ask("CLIENT", "LIST").text.count(b"\n") == 1
    for one in (mine, *others):
        one.close()


REPLIES = [
    "PING 1;CLIENT REPLY SKIP;PING 2;PING 3",
    "CLIENT REPLY OFF;PING 1;SET k v;GET k;CLIENT REPLY ON;PING 2;GET k",
    "CLIENT REPLY SKIP;CLIENT REPLY ON;PING",
    "CLIENT REPLY SKIP;CLIENT REPLY SKIP;PING 1;PING 2",
    "SET a 1;CLIENT REPLY SKIP;GET a;GET a;CLIENT REPLY SKIP;MGET a b c d;MGET a b c d",
    "CLIENT REPLY OFF;CLIENT REPLY SKIP;CLIENT REPLY ON;PING",
    "CLIENT REPLY OFF;INFO;DBSIZE;SELECT 1;NOPE;GET;CLIENT LIST;CLIENT REPLY ON;PING",
    "CLIENT REPLY OFF;SET k v;RESET;GET k",
    "CLIENT REPLY SKIP;RESET;PING",
    "CLIENT REPLY OFF;CLIENT REPLY SKIP;RESET;PING",
    "MONITOR;MONITOR;RESET;PING",
    "GET a;CLIENT REPLY SKIP;INFO;CLIENT REPLY SKIP;GET;PING 3;MGET a b",
    "CLIENT REPLY SKIP;CLIENT REPLY x;PING 4",
    "CLIENT REPLY SKIP;CLIENT REPLY OFF;RESET;PING",
    "CLIENT REPLY SKIP;CLIENT REPLY OFF;PING 1;CLIENT REPLY ON;PING 2",
    "CLIENT REPLY SKIP;UNSUBSCRIBE;PING 1;PING 2",
    "CLIENT REPLY SKIP;PUNSUBSCRIBE x;PING 1;PING 2",
    "CLIENT REPLY SKIP;SUBSCRIBE x;UNSUBSCRIBE x;PING 1;PING 2",
    "CLIENT REPLY OFF;UNSUBSCRIBE;PING 1;CLIENT REPLY ON;PING 2",
    "CLIENT REPLY SKIP;MULTI;UNSUBSCRIBE;PING 1;EXEC;PING 2",
    "MULTI;CLIENT REPLY SKIP;UNSUBSCRIBE;PING 1;EXEC;PING 2;PING 3",
]


@pytest.mark.parametrize("line", REPLIES)
def test_replies_that_are_not_wanted(pair: Pair, protocol: int, line: str) -> None:
    commands = [one.split(" ") for one in line.split(";")] + [["ECHO", "end"], ["QUIT"]]
    for at_once in (True, False):
        with pair.both(protocol) as both:
            for side in (both.bare, both.ours):
                packed = [pack(*words) for words in commands]
                for data in [b"".join(packed)] if at_once else packed:
                    side.send(data)
            assert both.ours.read_to_end() == both.bare.read_to_end()


@pytest.mark.parametrize("nothing", [b"\r\n", b"*0\r\n", b"*-1\r\n"])
def test_no_command_has_no_reply(pair: Pair, nothing: bytes) -> None:
    with pair.both() as both:
        both.same_bytes(pack("CLIENT", "REPLY", "SKIP") + nothing + pack("ECHO", "a"), 1)
        both.same("ECHO", "b")


@pytest.fixture
def admin(pair: Pair) -> Iterator[Both]:
    """A connection to each, and no pause left behind."""
    with pair.both() as both:
        yield both
        both.same("CLIENT", "UNPAUSE")


def paused(connection: Connection) -> int:
    """How many clients wait."""
    info = connection.ask("INFO", "clients").text.decode()
    return int(info.split("blocked_clients:")[1].split("\r\n")[0])


def test_a_pause_holds_writes_back(pair: Pair, admin: Both) -> None:
    admin.same("CLIENT", "PAUSE", 100000, "WRITE")
    waiting = [pair.both() for _ in range(4)]
    try:
        for number, both in enumerate(waiting):
            for side in (both.bare, both.ours):
                side.send(pack("GET", "k") + pack("INCR", f"count:{number}") + pack("GET", "k"))
                assert side.read().raw == b"$-1\r\n"
        until(lambda: paused(admin.ours) == len(waiting), "all wait")
        with pair.both() as both:
            both.same("GET", "count:0")
            both.same("SET")
        admin.same("CLIENT", "PAUSE", 1, "WRITE")  # no shorter than the first
        assert paused(admin.ours) == len(waiting)
        admin.same("CLIENT", "UNPAUSE")
        for both in waiting:
            for _ in range(2):
                assert both.ours.read() == both.bare.read()
    finally:
        for both in waiting:
            both.bare.close()
            both.ours.close()


READS: Final = (
    ("EVAL", "#!lua flags=no-writes\nreturn redis.call('GET', 'k')", 0),
    ("EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "k"),
    ("EVALSHA_RO", "NONE", 0),
    ("FCALL", "reads", 0),
)
WRITES: Final = (
    ("EVAL", "return 1", 0),
    ("EVAL", "#!lua\nreturn redis.call('SET', KEYS[1], 1)", 1, "k"),
    ("FCALL", "writes", 1, "k"),
    ("EVALSHA", "nope", 0),
)
LIBRARY: Final = """#!lua name=lib
redis.register_function{function_name='reads', callback=function() return 'r' end,
                        flags={'no-writes'}}
redis.register_function('writes', function(keys) return redis.call('SET', keys[1], 2) end)
"""


def test_a_pause_holds_back_scripts_that_may_write(pair: Pair, admin: Both) -> None:
    admin.same("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    admin.same("SET", "k", "v")
    known = admin.same("SCRIPT", "LOAD", "#!lua flags=no-writes\nreturn 5").text
    admin.same("CLIENT", "PAUSE", 100000, "WRITE")
    for words in (*READS, ("EVALSHA", known, 0)):
        admin.same(*words)
        admin.same("MULTI")
        admin.same(*words)
        admin.same("EXEC")
    waiting = [pair.both() for _ in WRITES]
    for both, call in zip(waiting, WRITES, strict=True):
        for side in (both.bare, both.ours):
            side.send(pack(*call) + pack("MULTI") + pack(*call) + pack("EXEC"))
        until(lambda: paused(admin.ours) == paused(admin.bare), "both wait")
    leaver = pair.ours()
    leaver.send(pack("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "left"))
    until(lambda: paused(admin.ours) == len(WRITES) + 1, "one more")
    leaver.close()
    until(lambda: paused(admin.ours) == len(WRITES), "it has left")
    admin.same("CLIENT", "UNPAUSE")
    for both in waiting:
        for _ in range(4):
            assert both.ours.read() == both.bare.read()
        both.bare.close()
        both.ours.close()
    admin.same("EXISTS", "left")
    admin.same("FUNCTION", "FLUSH")


def test_a_pause_ends(pair: Pair, admin: Both) -> None:
    admin.same("CLIENT", "PAUSE", 100000, "WRITE")
    with pair.both() as both:
        for side in (both.bare, both.ours):
            side.send(pack("SET", "k", "v") + pack("GET", "k"))
        until(lambda: paused(admin.ours) == 1, "it waits")
        line = admin.ours.ask("CLIENT", "LIST").text.decode()
        assert "flags=b " in line
        admin.same("CLIENT", "UNPAUSE")
        assert both.ours.read() == both.bare.read()
        assert both.ours.read() == both.bare.read()
        assert paused(admin.ours) == 0
        admin.same("CLIENT", "PAUSE", 200, "ALL")
        both.same("PING")  # after 200 ms
        both.same("SET", "k", "w")


def test_a_paused_client_may_go(pair: Pair, admin: Both) -> None:
    admin.same("CLIENT", "PAUSE", 100000, "WRITE")
    with pair.both() as both:
        number = both.ours.ask("CLIENT", "ID").number
        both.ours.send(pack("SET", "k", "v"))
        until(lambda: paused(admin.ours) == 1, "it waits")
        assert admin.ours.ask("CLIENT", "KILL", "ID", number).number == 1
        until(lambda: paused(admin.ours) == 0, "nobody waits")
        admin.same("GET", "k")
