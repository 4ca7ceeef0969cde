"""MONITOR shows what the bare server shows: every command, once, in the same words."""

import re
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.wire import Connection, Word, pack
from waiting import until

TIME_AND_ADDRESS = re.compile(rb"^\+\d+\.\d{6} \[(\d+) ([^\]]*)\]")


def shown(line: bytes) -> bytes:
    """A line without when and from where; what scripts run has no address."""
    found = TIME_AND_ADDRESS.match(line)
    assert found, line
    where = b"lua" if found[2] == b"lua" else b"client"
    return found[1] + b" " + where + line[found.end() :]


def same_lines(monitor: Both, count: int = 1) -> list[bytes]:
    """The next so many lines of both."""
    bare = [shown(monitor.bare.read().raw) for _ in range(count)]
    ours = [shown(monitor.ours.read().raw) for _ in range(count)]
    assert ours == bare
    return ours


def run(client: Both, *words: Word) -> None:
    """A command whose reply does not matter here."""
    client.bare.ask(*words)
    client.ours.ask(*words)


def nothing_else(monitor: Both, client: Both) -> None:
    """What comes next is the line about this, and nothing before it."""
    client.same("ECHO", "end")
    assert same_lines(monitor) == [b'0 client "ECHO" "end"\r\n']


def test_every_command_is_shown_once(pair: Pair, protocol: int) -> None:
    lines: list[tuple[Word, ...]] = [
        ("SET", "a", b'"\\\n\r\t\x07\x08\x00\xff '), ("get", "a"), ("MGET", "a", "b", "c", "d"),
        ("MSET", "a", 1, "b", 2, "c", 3), ("DEL", "a", "b", "c"), ("PING",), ("DBSIZE",),
        ("SELECT", 3), ("SET", "x", ""), ("SELECT", 0), ("LPUSH", "a"), ("LPUSH", "l", 1),
        ("INCR", "l"), ("EXISTS", "a", "b"), ("PUBLISH", "c", "m"), ("EXEC",), ("SCAN", 0),
        ("CLIENT", "SETNAME", "me"), ("COPY", "l", "other"), ("SUNIONSTORE", "s", "t", "u"),
    ]  # fmt: skip
    with pair.both(protocol) as monitor, pair.both(protocol) as client:
        monitor.same("MONITOR")
        for words in lines:
            run(client, *words)
            if words != ("LPUSH", "a"):
                same_lines(monitor)
        for hidden in ("WHAT", "CONFIG GET port", "GET", "SLOWLOG LEN", "DEBUG JMAP"):
            run(client, *hidden.split())
        nothing_else(monitor, client)


def test_passwords_are_not_shown(pair: Pair) -> None:
    with pair.both() as monitor, pair.both() as client:
        monitor.same("MONITOR")
        for line in (
            "AUTH no", "AUTH no no", "HELLO 3 AUTH no no", "HELLO 2 SETNAME AUTH AUTH x y",
            "HELLO 9 AUTH a",
        ):  # fmt: skip
            run(client, *line.split())
        assert any(b"(redacted)" in line for line in same_lines(monitor, 5))


@pytest.mark.parametrize("watching", [False, True])
def test_transactions_are_shown_when_they_run(pair: Pair, watching: bool) -> None:
    with pair.both() as monitor, pair.both() as client, pair.both() as other:
        monitor.same("MONITOR")
        for block, count in (
            ("SET a{t} 1|GET a{t}", 2), ("SET a 1|SET b 2|SET c 3|MGET a b c", 4),
            ("SELECT 2|SET a 1|SELECT 0", 3), ("SUNIONSTORE x a{s} b{t}", 1), ("WHAT", 0),
            ("PUBLISH a b", 1), ("", 0), ("SELECT 2|SET a 1", 2), ("SET a 1|SELECT 13|DBSIZE", 3),
            ("SELECT 16", 1), ("SELECT 1|SELECT 0|PING", 3),
        ):  # fmt: skip
            if watching:
                client.same("WATCH", "w")
                same_lines(monitor)
            client.same("MULTI")
            for line in block.split("|") if block else []:
                client.same(*line.split())
            client.same("EXEC")
            same_lines(monitor, count + 2)
        client.same("WATCH", "w")
        client.same("MULTI")
        client.same("SET", "a", 1)
        other.same("SET", "w", 1)
        client.same("EXEC")  # nothing has run
        same_lines(monitor, 4)
        client.same("MULTI")
        client.same("SET", "a", 1)
        client.same("DISCARD")
        same_lines(monitor, 2)
        nothing_else(monitor, other)


def test_commands_of_scripts_are_shown(pair: Pair) -> None:
    with pair.both() as monitor, pair.both() as client:
        monitor.same("MONITOR")
        script = "redis.call('set', KEYS[1], ARGV[1]) redis.call('PING')"
        client.same("EVAL", script, 1, "a", "b")
        for _ in range(3):
            assert b'client "EVAL"' in shown(monitor.ours.read().raw)
            inside = [shown(monitor.ours.read().raw).split(b" ", 1)[1] for _ in range(2)]
            assert inside == [b'lua "set" "a" "b"\r\n', b'lua "PING"\r\n']
            client.same("EVAL", script, 1, "a", "b")


A, B, C, D = spread("m", each=1)  # on four instances
CALLS: Final = "redis.call('set',{0},1) return redis.call('get',{1})"
SCRIPTS: Final = {
    "proved": (CALLS.format("KEYS[1]", "KEYS[1]"), 1, A),
    "may stray": (CALLS.format("ARGV[1]", "KEYS[1]"), 1, A, A),
    "strays": (CALLS.format("KEYS[1]", "ARGV[1]"), 1, A, B),
    "strays after a write": (
        "redis.call('set',KEYS[1],1) redis.call('set',ARGV[1],1) return redis.call('get',ARGV[1])",
        1, B, C,
    ),
    "on several": (CALLS.format("KEYS[1]", "KEYS[2]"), 2, A, D),
    "without keys": ("for i=1,40 do redis.call('set','m'..i,1) end", 0),
    "more each time": ("return redis.call('get',redis.call('get','next') or 'next')", 0),
    "lists": ("return #redis.call('keys','*')", 0),
    "fails": ("return redis.pcall('lpush',KEYS[1],ARGV[1])", 1, A, "x"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_shown_as_by_one_server(pair: Pair, name: str) -> None:
    """Once, in its client's database, and nothing of ours beside it."""
    words = ("EVAL", *SCRIPTS[name])
    with pair.both() as monitor, pair.both() as client:
        for db in (0, 3):
            client.same("SELECT", db)
            client.same("MSET", "next", A, A, 1, C, "other")
            monitor.same("MONITOR")
            for _ in range(3):
                client.same(*words)
                count = 1 + len(re.findall(rb"redis\.p?call", str(SCRIPTS[name][0]).encode()))
                count += 39 if name == "without keys" else 0
                same_lines(monitor, count)
            # Whatever else an instance has told would come before this.
            client.same("EVAL", "for _, key in ipairs(KEYS) do redis.call('type',key) end", 4,
                        A, B, C, D)  # fmt: skip
            same_lines(monitor, 5)
            monitor.same("RESET")


def until_killed(monitor: Connection, client: Connection, admin: Connection) -> list[bytes]:
    """What is shown of a script that ends when it is killed."""
    until(lambda: admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n", "it is killed")
    assert client.read().is_error
    admin.ask("ECHO", "end")
    lines = []
    while b'"ECHO"' not in (line := shown(monitor.read().raw)):
        lines.append(line)
    return [line for line in lines if b"SCRIPT" not in line]


@pytest.mark.parametrize("keys", [(A,), (A, D)], ids=["in place", "on copies"])
def test_what_a_script_has_run_that_was_killed_is_shown(pair: Pair, keys: tuple[str, ...]) -> None:
    script = "redis.call('get', KEYS[1]) redis.call('exists', KEYS[#KEYS]) while true do end"
    with pair.both() as monitor, pair.both() as client, pair.both() as admin:
        admin.same("CONFIG", "SET", "lua-time-limit", 10)
        monitor.same("MONITOR")
        client.bare.send(pack("EVAL", script, len(keys), *keys))
        bare = until_killed(monitor.bare, client.bare, admin.bare)
        client.ours.send(pack("EVAL", script, len(keys), *keys))
        assert until_killed(monitor.ours, client.ours, admin.ours) == bare
        assert len(bare) == 3
        admin.same("CONFIG", "SET", "lua-time-limit", 5000)


PLAIN: Final = ("EVAL", "return redis.call('get',KEYS[1])", 1, A)
WANDERS: Final = ("EVAL", "return redis.call('get',ARGV[1])", 1, A, B)
CALLS_MANY: Final = ("EVAL", "redis.call('set',KEYS[1],1) redis.call('incr',KEYS[2])", 2, C, D)
BLOCKS: Final[dict[str, list[tuple[Word, ...]]]] = {
    "at home": [("SET", A, 1), PLAIN, ("SET", A, 2), PLAIN, ("GET", A)],
    "on several": [("SET", A, 1), PLAIN, ("SET", B, 2), (*PLAIN[:3], B), ("DEL", A)],
    "wander": [("SET", A, 1), WANDERS, ("SET", B, 2), CALLS_MANY, ("GET", C)],
    "with others": [("PING",), ("SET", A, 1), WANDERS, ("ECHO", "x"), CALLS_MANY, ("GET", B)],
    "in another database": [("SELECT", 3), ("SET", A, 1), PLAIN, ("SELECT", 0), PLAIN],
    "fail": [("SET", A, "x"), ("EVAL", "return redis.call('incr',KEYS[1])", 1, A), PLAIN],
    "hidden between": [("CONFIG", "GET", "port"), ("SET", A, 1), PLAIN, ("SET", A, 2)],
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_scripts_of_a_transaction_are_shown_in_its_order(pair: Pair, name: str) -> None:
    with pair.both() as monitor, pair.both() as client, pair.both() as admin:
        monitor.same("MONITOR")
        for _ in range(3):
            client.same("MULTI")
            for words in BLOCKS[name]:
                client.same(*words)
            client.same("EXEC", how="shape")
            end(monitor, admin, name)


def test_what_a_monitor_may_do(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as monitor, pair.both(protocol) as client:
        for words in (("MULTI",), ("MONITOR",), ("EXEC",)):
            monitor.same(*words)
        monitor.same("MONITOR")
        for line in ("GET a", "SET a 1", "MGET a b", "DBSIZE", "PUBLISH a b"):
            monitor.same(*line.split())
        monitor.same("PING")
        same_lines(monitor)
        listing = client.ours.ask("CLIENT", "LIST").text
        assert b" flags=O " in listing
        monitor.same("RESET")
        client.same("SET", "a", 1)
        monitor.same("GET", "a")


REFUSED: Final = [
    "AUTH limited p", "GET other", "GET m", "SET other 1", "LPUSH m 1", "XREAD STREAMS other 0",
    "OBJECT ENCODING other", "MEMORY USAGE other", "SORT m BY x_*", "MGET m other", "CONFIG GET x",
    "MULTI", "GET other", "EXEC", "MULTI", "GET m", "EXEC x", "EXEC", "PUBLISH c m", "SORT m",
    "EVAL return(redis.call('get',KEYS[1])) 1 other",
]  # fmt: skip
FULL: Final = [
    "SET m 1", f"MSET {A} 1 {B} 2", "LPUSH l 1", "GET m", f"SUNIONSTORE {A} {B} {C}", "DEL m",
    "MULTI", "GET m", "SET m 1", "EXEC", "EVAL return(1) 0",
]  # fmt: skip


def test_what_may_not_run_is_not_shown(pair: Pair) -> None:
    with pair.both() as monitor, pair.both() as admin:
        admin.same("ACL", "SETUSER", "limited", "on", ">p", "~m", "+@all", "-lpush", "-config")
        monitor.same("MONITOR")
        try:
            for client, lines in ((pair.both(), REFUSED), (pair.both(), FULL)):
                with client:
                    if lines is FULL:
                        admin.same("CONFIG", "SET", "maxmemory", 1)
                    for line in lines:
                        run(client, *line.split())
                        end(monitor, admin, line)
        finally:
            admin.same("CONFIG", "SET", "maxmemory", 0)
            admin.same("ACL", "DELUSER", "limited")


def test_exec_of_a_client_that_has_not_said_who_it_is_is_shown(pair: Pair) -> None:
    with pair.both() as monitor, pair.both() as admin:
        admin.same("CONFIG", "SET", "requirepass", "secret")
        try:
            monitor.same("MONITOR")
            with pair.both() as client:
                for line in ("GET m", "MULTI", "EXEC", "PING"):
                    client.same(*line.split())
                    end(monitor, admin, line)
        finally:
            admin.same("CONFIG", "SET", "requirepass", "")


def end(monitor: Both, admin: Both, what: str) -> None:
    """Both show the same, up to now."""
    admin.same("ECHO", "end")
    found = []
    for side in (monitor.bare, monitor.ours):
        lines = []
        while b'"ECHO"' not in (line := shown(side.read().raw)):
            lines.append(line)
        found.append(lines)
    assert found[1] == found[0], what
