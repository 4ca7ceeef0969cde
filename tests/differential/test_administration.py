"""SLOWLOG, LATENCY, SAVE, WAIT and more: one server's, although there are four."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.pair import Pair
from differential.wire import Connection, pack, split
from threadis.bench.processes import held_port
from waiting import until


def commands(program: str) -> list[list[bytes]]:
    """The commands of a program, one a semicolon or a line."""
    return [split(one) for line in program.strip().splitlines() for one in line.split("; ")]


ADDRESS = re.compile(rb".+:[0-9]+")
COARSE = 5  # Linux: the clock that servers read


def test_slowlog(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in ("SLOWLOG GET x", "SLOWLOG GET -2", "SLOWLOG GET 1 2", "SLOWLOG NOPE"):
            both.same_line(line)
        both.same("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 50)
        try:
            both.same("SLOWLOG", "RESET")
            for number in range(20):
                both.same("SET", f"k:{number}", "v" * 200)
            both.ours.ask("CONFIG", "SET", "slowlog-log-slower-than", 1_000_000)
            entries = both.ours.ask("SLOWLOG", "GET", -1).elements
            ids = [entry.elements[0].number for entry in entries]
            assert ids == sorted(set(ids), reverse=True)
            times = [entry.elements[1].number for entry in entries]
            assert times == sorted(times, reverse=True)
            words = [[word.text for word in entry.elements[3].elements] for entry in entries]
            assert {word[0].upper() for word in words} <= {b"SET", b"SLOWLOG", b"CONFIG"}, words
            sets = [word for word in words if word[0] == b"SET"]
            assert {word[1] for word in sets} == {b"k:%d" % number for number in range(20)}
            assert all(word[2] == b"v" * 128 + b"... (72 more bytes)" for word in sets)
            assert both.ours.ask("SLOWLOG", "LEN").number == len(entries)
            again = both.ours.ask("SLOWLOG", "GET", -1).elements
            assert [entry.elements[0].number for entry in again] == ids
            assert len(both.ours.ask("SLOWLOG", "GET").elements) == 10
            both.ours.ask("CONFIG", "SET", "slowlog-max-len", 3)
            assert both.ours.ask("SLOWLOG", "LEN").number == 3
            assert both.ours.ask("SLOWLOG", "RESET").raw == b"+OK\r\n"
            assert both.ours.ask("SLOWLOG", "LEN").number == 0
        finally:
            both.same("CONFIG", "SET", "slowlog-log-slower-than", 10000, "slowlog-max-len", 128)


EVERYTHING = """
PING; ECHO x; CLIENT SETNAME who; SET k v; MSET a 1 b 2 c 3 d 4; CONFIG SET masterauth secret
CONFIG SET maxmemory-policy noeviction; AUTH default nopass; ACL SETUSER someone off; ACL LIST
MULTI; SET a 2; PING; SET b 3; EXEC; EVAL "return 1" 0; GET k; NOSUCH; SET
KEYS ?; DBSIZE; KEYS ?; KEYS nothing; PUBLISH c m; PUBSUB NUMPAT; PUBSUB CHANNELS; AUTH nobody no
HELLO 3 AUTH nobody no; PUBSUB NUMSUB c; UNSUBSCRIBE c
MGET a b c d e; EXISTS a b c a; TOUCH a b c d; DEL a b; UNLINK b c d; MULTI; MGET a b c; EXEC
"""


def logged(connection: Connection) -> list[list[bytes]]:
    """What SLOWLOG shows, oldest first."""
    entries = connection.ask("SLOWLOG", "GET", -1).elements
    return [[word.text for word in one.elements[3].elements] for one in entries][::-1]


def addresses(connection: Connection) -> set[bytes]:
    """The clients' addresses in SLOWLOG."""
    entries = connection.ask("SLOWLOG", "GET", -1).elements
    return {one.elements[4].text for one in entries}


def test_a_slowlog_of_everything(pair: Pair) -> None:
    with pair.both() as both, pair.both() as waiter:
        both.same("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 128)
        try:
            for side in (both.bare, both.ours):
                side.ask("SLOWLOG", "RESET")
                for words in commands(EVERYTHING):
                    side.ask(*words)
            # Native and other commands are ordered by the second only.
            ours, bare = sorted(logged(both.ours)), sorted(logged(both.bare))
            missing = [one for one in bare if one not in ours]
            extra = [one for one in ours if one not in bare]
            assert ours == bare, (missing, extra)
            # Clients take them apart; of shared lanes nobody knows them.
            assert all(
                ADDRESS.fullmatch(one) for one in addresses(both.bare) | addresses(both.ours)
            )
            for side, one in ((both.bare, waiter.bare), (both.ours, waiter.ours)):
                one.send(pack("BLPOP", "l", 0))
                until(lambda: b"blocked_clients:1" in side.ask("INFO", "clients").text, "it waits")  # noqa: B023
                side.ask("RPUSH", "l", "x")
                assert one.read().kind == "*"
                assert [b"BLPOP", b"l", b"0"] in logged(side)[-3:]
        finally:
            both.same("CONFIG", "SET", "slowlog-log-slower-than", 10000, "masterauth", "")


def test_commands_of_scripts_are_in_the_slowlog(pair: Pair) -> None:
    script = "redis.call('SET', KEYS[1], 1) return redis.call('MGET', unpack(KEYS))"
    with pair.both() as both:
        both.same("CONFIG", "SET", "slowlog-log-slower-than", 0)
        both.same("CLIENT", "SETNAME", "who")
        try:
            found = []
            for side in (both.bare, both.ours):
                side.ask("SLOWLOG", "RESET")
                for keys in (["{k}1", "{k}2"], ["{k}1", "{k}2"], ["a", "b"], ["a", "b"]):
                    assert side.ask("EVAL", script, 2, *keys).elements[0].text == b"1"
                entries = side.ask("SLOWLOG", "GET", -1).elements[:-1]
                named = [entry for entry in entries if entry.elements[5].text == b"who"]
                assert len({entry.elements[4].text for entry in named}) == 1  # its address
                words = [entry.elements[3].elements for entry in named]
                found.append([[word.text for word in one] for one in words])
            bare, ours = found
            inside = [words for words in ours if words[0] in (b"SET", b"MGET")]
            if pair.server.kind == "valkey":
                assert len(inside) == 8
                assert sorted(ours) == sorted(bare)
            else:  # Redis 7.0 does not know who called the script
                assert inside == []
        finally:
            both.same("CONFIG", "SET", "slowlog-log-slower-than", 10000)


def test_commandlog(pair: Pair) -> None:
    with pair.both() as both:
        both.same("COMMANDLOG", "GET", 1, "nope")
        if pair.server.kind != "valkey":
            return  # Redis has none, and says so
        both.same("CONFIG", "SET", "commandlog-request-larger-than", 1000)
        both.same("COMMANDLOG", "RESET", "large-request")
        for number in range(8):
            both.same("SET", f"k:{number}", "v" * 2000)
        both.same("COMMANDLOG", "LEN", "large-request")
        both.same("COMMANDLOG", "RESET", "large-request")
        both.same("COMMANDLOG", "LEN", "large-request")
        both.same("CONFIG", "SET", "commandlog-request-larger-than", 1048576)


def test_latency(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in (
            "LATENCY RESET", "LATENCY LATEST", "LATENCY HISTORY command", "LATENCY RESET nope",
            "LATENCY HISTOGRAM nope", "LATENCY NOPE", "LATENCY HISTORY",
        ):  # fmt: skip
            both.same_line(line)
        both.same("CONFIG", "RESETSTAT")
        for number in range(40):
            both.same("SET", f"k:{number}", "v")
        found = both.ours.ask("LATENCY", "HISTOGRAM", "set").elements
        bare = both.bare.ask("LATENCY", "HISTOGRAM", "set").elements
        assert [part.text for part in found[::2]] == [part.text for part in bare[::2]]
        assert found[1].elements[1].number == bare[1].elements[1].number == 40
        assert found[1].elements[3].elements[-1].number == 40


def test_persistence(pair: Pair) -> None:
    with pair.both() as both:
        both.same("SET", "k", "v")
        before = int(time.clock_gettime(COARSE))
        both.same("SAVE")
        assert both.ours.ask("LASTSAVE").number >= before
        assert both.ours.ask("BGSAVE").raw == both.bare.ask("BGSAVE").raw
        both.same("SAVE", "x")
        both.same("LASTSAVE", "x")


def test_wait_and_replication(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in (
            "WAIT 0 0", "WAIT x 0", "WAIT 0 x", "WAIT 0 -1", "WAIT 1 50", "REPLICAOF NO ONE",
            "SLAVEOF no one", "REPLICAOF", "shape ROLE", "MEMORY PURGE", "MODULE LIST",
        ):  # fmt: skip
            both.same_line(line)
        began = time.monotonic()
        assert both.ours.ask("WAIT", 1, 200).number == 0
        assert 0.2 <= time.monotonic() - began < 2
        for line in ("REPLICAOF 127.0.0.1 1", "SYNC", "PSYNC ? -1"):
            assert both.ours.ask(*line.split()).is_error
        both.same("PING")


def test_what_a_primary_without_replicas_refuses(pair: Pair) -> None:
    with pair.both() as both:
        for line in (
            "FAILOVER", "FAILOVER ABORT", "FAILOVER TO h 1", "FAILOVER NOPE", "SHUTDOWN NOPE",
            "SHUTDOWN ABORT", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT ABORT", "MODULE LOAD",
            "MODULE LOAD /x", "MODULE UNLOAD x", "MODULE LIST", "LATENCY GRAPH", "LATENCY GRAPH x",
            "CONFIG SET dir /", "CONFIG SET dbfilename x", "MULTI", "SHUTDOWN", "DISCARD",
        ):  # fmt: skip
            both.same_line(line)
        for line in ("SYNC", "PSYNC ? -1", "REPLCONF capa eof"):
            assert both.ours.ask(*line.split()).text.startswith(b"ERR threadis: "), line


def test_memory_stats_look_the_same(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for number in range(100):
            both.same("SET", f"k:{number}", "v")
        bare, ours = both.bare.ask("MEMORY", "STATS"), both.ours.ask("MEMORY", "STATS")
        # Valkey shows every database that it has ever used
        kinds = [
            {
                name.text: value.kind
                for name, value in zip(reply.elements[::2], reply.elements[1::2], strict=True)
                if not name.text.startswith(b"db.")
            }
            for reply in (bare, ours)
        ]
        assert kinds[0] == kinds[1]


@pytest.fixture
def third(pair: Pair, tmp_path: Path) -> Iterator[int]:
    """The port of another server of the same kind."""
    unix = tmp_path / "third.sock"
    with held_port() as port:
        command = [pair.server.path, "--port", str(port), "--unixsocket", str(unix), "--save", ""]
        process = subprocess.Popen([*command, "--logfile", str(tmp_path / "log")])
        try:
            until(unix.exists, "it listens")
            yield port
        finally:
            process.terminate()
            process.wait()


def test_migrate(pair: Pair, protocol: int, third: int) -> None:
    """To a third server: from each instance what it has."""
    host, port = "127.0.0.1", third
    keys = [f"m:{number}" for number in range(8)]
    with pair.both(protocol) as both:
        for line in (
            "MIGRATE", f"MIGRATE {host} {port} none 0 1000", f"MIGRATE {host} x k 0 1000",
            f"MIGRATE {host} {port} k 0 1000 KEYS a", f"MIGRATE {host} {port} '' 0 1000 NOPE",
            f"MIGRATE {host} {port} '' 0 1000 KEYS a b c",
        ):  # fmt: skip
            both.same_line(line)
        both.same("MSET", *(word for key in keys for word in (key, "v")))
        both.same("MIGRATE", host, port, keys[0], 0, 5000, "COPY", "REPLACE")
        both.same("MIGRATE", host, port, "", 0, 5000, "COPY", "REPLACE", "KEYS", *keys, "none")
        both.same("MIGRATE", host, port, "", 0, 5000, "KEYS", *keys)  # they are there already
        both.same("MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS", *keys)
        both.same("EXISTS", *keys)
        both.same("MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS", *keys)


def test_waitaof(pair: Pair) -> None:
    with pair.both() as both:
        for line in ("WAITAOF", "WAITAOF x 0 0", "WAITAOF 1 0 0", "WAITAOF 0 0 0", "WAITAOF 2 0 0",
                     "WAITAOF 0 1 20", "WAITAOF 0 0 -1"):  # fmt: skip
            both.same_line(line)
        if pair.server.kind != "valkey":
            return  # Redis 7.0 has none
        both.same("CONFIG", "SET", "appendonly", "yes", "appendfsync", "everysec")
        try:
            both.same("MSET", *(word for number in range(8) for word in (f"w:{number}", "v")))
            both.same("WAITAOF", 1, 0, 0)
            both.same("WAITAOF", 1, 1, 3000)  # ours needs the next fsync
        finally:
            both.same("CONFIG", "SET", "appendonly", "no")
