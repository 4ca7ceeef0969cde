"""CONFIG and INFO: one server's, although there are four."""

import os
import re
import signal

import pytest
import redis

from differential.conftest import INSTANCES
from differential.pair import Pair
from differential.wire import Connection, Reply
from raw import keys_of
from waiting import until


def test_set_and_get(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in (
            "CONFIG SET maxmemory-policy allkeys-lfu", "CONFIG GET maxmemory-policy",
            "SET k v", "OBJECT FREQ k", "OBJECT FREQ none", "OBJECT IDLETIME k",
            "CONFIG SET maxmemory-policy noeviction", "OBJECT FREQ k",
            "CONFIG SET hz 10 hz", "CONFIG SET a b c",
            "CONFIG SET hash-max-listpack-entries 2", "CONFIG GET hash-max-listpack-entries",
            "HSET h a 1 b 2 c 3", "= OBJECT ENCODING h",
            "CONFIG SET hash-max-listpack-entries 512",
            "CONFIG SET hash-max-listpack-entries x", "CONFIG SET hash-max-listpack-entries",
            "CONFIG SET maxmemory-policy nope", "CONFIG SET nope nope", "CONFIG SET",
            "CONFIG SET maxmemory", "CONFIG SET maxmemory 100mb", "CONFIG GET maxmemory",
            "CONFIG SET maxmemory 1gb", "CONFIG GET maxmemory", "CONFIG SET maxmemory x",
            "CONFIG SET maxmemory 0", "CONFIG GET maxmemory", "CONFIG SET maxclients 5000",
            "CONFIG GET maxclients", "CONFIG SET maxclients 0", "CONFIG SET maxclients 10000",
            "CONFIG SET timeout 100", "CONFIG GET timeout", "CONFIG SET timeout -1",
            "CONFIG SET timeout 0", "CONFIG SET tcp-keepalive 60", "CONFIG GET tcp-keepalive",
            "CONFIG SET tcp-keepalive 300", "CONFIG GET", "CONFIG GET nope", "CONFIG NOPE",
            "CONFIG GET databases", "CONFIG GET requirepass", "CONFIG RESETSTAT",
            "CONFIG SET maxmemory-clients x", "CONFIG SET maxmemory-clients 100mb",
            "CONFIG GET maxmemory-clients", "CONFIG SET maxmemory-clients 200%",
            "CONFIG SET maxmemory-clients 5%", "CONFIG GET maxmemory-clients",
            "CONFIG SET maxmemory-clients -1", "CONFIG SET maxmemory-clients 0",
            "CONFIG SET databases 3", "CONFIG SET unixsocket x",
            "CONFIG SET enable-debug-command no",
            "CONFIG SET timeout 7 daemonize yes", "CONFIG GET timeout",
        ):  # fmt: skip
            both.same_line(line)


def test_values_that_are_empty_or_spaced(pair: Pair, protocol: int) -> None:
    limits = "normal 0 0 0"
    with pair.both(protocol) as both:
        for name, value in (
            ("maxmemory", ""), ("maxmemory", "kb"), ("maxmemory", "1 kb"), ("maxmemory", "0x1"),
            ("maxmemory-clients", ""), ("maxmemory-clients", "%"),
            ("client-query-buffer-limit", ""),
            ("client-output-buffer-limit", ""), ("client-output-buffer-limit", " "),
            ("client-output-buffer-limit", limits), ("client-output-buffer-limit", f"{limits} "),
            ("client-output-buffer-limit", f" {limits}"),
            ("client-output-buffer-limit", "normal  0 0 0"),
            ("client-output-buffer-limit", "normal\t0 0 0"),
        ):  # fmt: skip
            both.same("CONFIG", "SET", name, value)
            both.same("CONFIG", "GET", name)
        both.same("CONFIG", "SET", "maxmemory", 0, "maxmemory-clients", 0)


def test_all_or_nothing(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("CONFIG", "SET", "hash-max-listpack-entries", 7, "set-max-intset-entries", 7)
        both.same("CONFIG", "SET", "hash-max-listpack-entries", 9, "set-max-intset-entries", "x")
        both.same("CONFIG", "SET", "hash-max-listpack-entries", 9, "nope", 1)
        both.same("CONFIG", "SET", "set-max-intset-entries", 9, "set-max-intset-entries", 8)
        both.same("CONFIG", "SET", "timeout", 9, "set-max-intset-entries", "x")
        both.same("CONFIG", "SET", "set-max-intset-entries", 9, "timeout", "x")
        for name in ("hash-max-listpack-entries", "set-max-intset-entries", "timeout"):
            both.same("CONFIG", "GET", name)
        both.same("CONFIG", "SET", "hash-max-listpack-entries", 512, "set-max-intset-entries", 512)


@pytest.mark.parametrize(
    "name", ["port", "bind", "dir", "unixsocket", "databases", "replicaof", "cluster-enabled"]
)
def test_what_is_ours_cannot_be_changed(pair: Pair, name: str) -> None:
    ours = pair.ours()
    before = ours.ask("CONFIG", "GET", name).raw
    assert ours.ask("CONFIG", "SET", name, "1").is_error
    assert ours.ask("CONFIG", "SET", "timeout", "5", name, "1").is_error
    assert ours.ask("CONFIG", "GET", "timeout").elements[1].text == b"0"
    assert ours.ask("CONFIG", "GET", name).raw == before
    assert ours.ask("PING").raw == b"+PONG\r\n"
    ours.close()


def test_config_get_names_what_the_server_names(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        bare, ours = (side.ask("CONFIG", "GET", "*") for side in (both.bare, both.ours))
        assert {name.text for name in bare.elements[::2]} == {
            name.text for name in ours.elements[::2]
        }
        shown = dict(
            zip(
                (name.text for name in ours.elements[::2]),
                (value.text for value in ours.elements[1::2]),
                strict=True,
            )
        )
        assert shown[b"port"] == b"%d" % pair.threadis.port
        assert shown[b"requirepass"] == b""  # the instances' own is nobody's business


def test_maxmemory_is_the_total(pair: Pair) -> None:
    ours = pair.ours()
    assert ours.ask("CONFIG", "SET", "maxmemory", "64mb").raw == b"+OK\r\n"
    try:
        assert re.search(rb"^maxmemory:67108864\r", ours.ask("INFO", "memory").text, re.MULTILINE)
        value, numbers = b"v" * 1_000_000, iter(range(10_000))

        def fill() -> Reply:
            """Set keys of one instance until one is refused."""
            replies = (ours.ask("SET", f"{{one}}{number}", value) for number in numbers)
            return next(reply for reply in replies if reply.is_error)

        until(lambda: (fill(), ours.ask("DBSIZE").number)[1] > 24, "it has more than a quarter")
        assert fill().raw.startswith(b"-OOM ")
        assert ours.ask("DBSIZE").number < 64
    finally:
        assert ours.ask("CONFIG", "SET", "maxmemory", "0").raw == b"+OK\r\n"
        ours.close()


def fields(connection: Connection, *sections: str) -> dict[str, str]:
    """INFO, as pairs."""
    text = connection.ask("INFO", *sections).text.decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_info_is_one_servers(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for sections in ((), ("server",), ("memory", "cpu"), ("all",), ("everything",)):
            bare, ours = (fields(side, *sections) for side in (both.bare, both.ours))
            missing = {name for name in bare if name not in ours}
            # Statistics of commands that ran on one side only, and listeners, which are ours.
            assert {
                n for n in missing if not re.match("cmdstat|latency|errorstat|listener", n)
            } <= (set()), sections
        both.same("INFO", "nope", how="exact")
        for name in ("redis_version", "role", "maxmemory_policy", "arch_bits"):
            assert fields(both.ours)[name] == fields(both.bare)[name]


def test_info_adds_the_keys(pair: Pair) -> None:
    with pair.both() as both:
        for db, count in ((0, 100), (3, 40)):
            both.same("SELECT", db)
            both.same("MSET", *(word for number in range(count) for word in (f"k:{number}", "v")))
            for number in range(7):
                both.same("EXPIRE", f"k:{number}", 10_000)
        shown = fields(both.ours, "keyspace")
        expected = fields(both.bare, "keyspace")
        assert {db: text.split(",")[:2] for db, text in shown.items()} == {
            db: text.split(",")[:2] for db, text in expected.items()
        }
        assert shown["db0"].startswith("keys=100,expires=7,")
        own = fields(both.ours, "threadis")
        assert own["threadis_instances"] == str(INSTANCES)
        keys = [int(own[f"instance{i}"].rpartition("keys=")[2]) for i in range(INSTANCES)]
        assert sum(keys) == 140
        assert all(own[f"instance{i}"].startswith("state=ready,pid=") for i in range(INSTANCES))


def test_resetstat_sets_to_zero(pair: Pair) -> None:
    ours = pair.ours()
    for _ in range(50):
        ours.ask("GET", "x")
    assert int(fields(ours, "stats")["keyspace_misses"]) >= 50
    assert ours.ask("CONFIG", "RESETSTAT").raw == b"+OK\r\n"
    after = fields(ours, "stats")
    assert after["keyspace_misses"] == "0"
    assert int(after["total_commands_processed"]) < 5
    ours.close()


def test_a_restarted_instance_is_told_what_was_set(pair: Pair) -> None:
    with pair.threadis.client() as client:
        client.config_set("hash-max-listpack-entries", 3)
        pids = pair.threadis.instance_pids()
        os.kill(pids[2], signal.SIGKILL)
        until(
            lambda: pair.threadis.instance_pids()[2:3] not in ([], [pids[2]], [pids[3]]),
            "a new process",
        )
        names = [f"hash:{number}" for number in range(64)]

        def answers() -> bool:
            try:
                client.delete(*names)
            except redis.RedisError:
                return False
            return True

        until(answers, "all instances answer")
        for name in names:
            client.hset(name, mapping={str(number): number for number in range(5)})
        assert {client.object("encoding", name) for name in names} == {b"hashtable"}
        client.config_set("hash-max-listpack-entries", 512)


def test_a_restarted_instance_is_whole_before_a_client_reaches_it(pair: Pair) -> None:
    """What it has lost (functions here) it gets back first; nobody hears that they are missing."""
    library = "#!lua name=l\nredis.register_function('f', function() return 'here' end)"
    key = next(keys_of(2, INSTANCES)).decode()
    told = set()
    with pair.threadis.client() as client:
        client.function_load(library, replace=True)

        def answers() -> bool:
            try:
                found: object = client.fcall("f", 1, key)
            except redis.RedisError as error:
                told.add(str(error))
                return False
            return found == b"here"

        for _ in range(5):
            pid = pair.threadis.instance_pids()[2]
            os.kill(pid, signal.SIGKILL)
            until(lambda: pid not in pair.threadis.instance_pids(), "it is gone")  # noqa: B023
            until(answers, "it answers")
        client.function_flush()
    assert told and not any("unction" in words for words in told), told


def test_a_limit_that_is_lifted_is_lifted(pair: Pair) -> None:
    """Shares of it are divided anew each second: none of an old one may come late."""
    with pair.both() as both:
        for _ in range(300):
            both.same("CONFIG", "SET", "maxmemory", 1)
            both.same("CONFIG", "SET", "maxmemory", 0)
            for key in ("a", "b", "c", "d"):
                both.same("SET", key, 1)
