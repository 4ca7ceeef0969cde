"""A script that runs for too long: whoever needs its instance is told BUSY, by old connections of
ours and by new ones, and these are in the right database afterwards.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from raw import Address, bare_server, cpu_seconds, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

FOREVER = "while true do end"


def test_connections_while_a_script_runs(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")

    def connect(db: int) -> Connection:
        connection = Connection(("127.0.0.1", running.port))
        assert connection.ask("SELECT", db).raw == b"+OK\r\n"
        return connection

    first, other, script = connect(0), connect(5), connect(5)
    assert first.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    assert first.ask("SET", "{k}", "1").raw == b"+OK\r\n"
    script.send(pack("EVAL", FOREVER, 1, "k"))  # k is locked, and our link is in database 5
    until(lambda: first.ask("GET", "{k}").raw.startswith(b"-BUSY"), "it runs")
    assert other.ask("GET", "k").raw.startswith(b"-BUSY")
    fresh = connect(7)
    assert fresh.ask("GET", "k").raw.startswith(b"-BUSY")
    assert fresh.ask("BLPOP", "{k}list", 1).raw.startswith(b"-BUSY")
    assert first.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    for connection, text in ((first, b"zero"), (other, b"five"), (fresh, b"seven")):
        assert connection.ask("RPUSH", "{k}list", text).number == 1
        assert connection.ask("BLPOP", "{k}list", 1).elements[1].text == text
    for connection in (first, other, script, fresh):
        connection.close()


def test_config_set_is_answered_while_a_script_runs_and_somebody_tracks(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "2", "--save", "")
    tracks, admin, script = (Connection(("127.0.0.1", running.port)) for _ in range(3))
    assert tracks.ask("HELLO", 3).raw.startswith(b"%")
    assert tracks.ask("CLIENT", "TRACKING", "ON").raw == b"+OK\r\n"
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    script.send(pack("EVAL", FOREVER, 1, "foo"))
    change = ("CONFIG", "SET", "maxmemory-samples", "6")
    until(lambda: admin.ask(*change).raw.startswith(b"-BUSY"), "it runs")
    assert admin.ask(*change).raw.startswith(b"-BUSY")
    assert admin.ask("PING").raw.startswith(b"-BUSY")
    assert admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    assert admin.ask("CONFIG", "SET", "maxmemory-samples", "6").raw == b"+OK\r\n"
    assert "Traceback" not in running.log()
    for connection in (tracks, admin, script):
        connection.close()


READS = "redis.pcall('GET', 'a') redis.pcall('GET', 'b') redis.pcall('GET', 'c') "


@pytest.mark.parametrize(
    "call",
    [("EVAL", 0), ("EVAL", 1, "k"), ("EVAL", 2, "k", "{c}k"), ("EVAL_RO", 0), ("EVAL_RO", 1, "k")],
    ids=str,
)
def test_a_script_that_is_killed_is_not_run_again(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, call: tuple[str | int, ...]
) -> None:
    """Although it touches keys that are not declared, and on several instances."""
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")
    admin, script = (Connection(("127.0.0.1", running.port)) for _ in range(2))
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    name, *keys = call
    script.send(pack(name, READS + FOREVER, *keys))
    until(lambda: admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n", "it is killed")
    reply = script.read()
    assert reply.is_error
    assert b"Script killed by user" in reply.raw
    assert admin.ask("SCRIPT", "KILL").raw.startswith(b"-NOTBUSY")
    assert script.ask("MGET", "a", "b", "c").raw == b"*3\r\n" + b"$-1\r\n" * 3
    admin.close()
    script.close()


def test_a_script_of_one_who_tracks_has_run_although_another_instance_is_lost(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1", "--save", ""]
    running = threadis(*flags)
    key = next(keys_of(0, 2)).decode()
    script = "for i = 1, 3e7 do local n = i end return redis.call('incr', KEYS[1])"
    works, other = running.instance_pids()
    client = Connection(("127.0.0.1", running.port))
    assert not client.ask("HELLO", "3").is_error
    assert client.ask("CLIENT", "TRACKING", "ON").raw == b"+OK\r\n"
    before = cpu_seconds(works)
    client.send(pack("EVAL", script, "1", key))
    until(lambda: cpu_seconds(works) > before + 0.05, "the script runs")
    with stopped(running.process.pid):  # it starts no other
        os.kill(other, signal.SIGKILL)
        assert client.read().number == 1
    client.close()


ASKED = [
    "LATENCY LATEST", "LATENCY HISTORY command", "LATENCY HISTOGRAM", "LATENCY RESET",
    "LATENCY GRAPH command", "LATENCY DOCTOR", "LASTSAVE", "ROLE", "RANDOMKEY", "DBSIZE", "KEYS *",
    "SCAN 0", "MEMORY STATS", "MEMORY DOCTOR", "MEMORY PURGE", "SLOWLOG GET", "SLOWLOG LEN",
    "SLOWLOG RESET", "ACL LOG", "ACL LOG RESET", "ACL LIST", "ACL GETUSER default", "ACL SAVE",
    "ACL SETUSER bob on", "ACL DELUSER bob", "ACL DRYRUN default GET a", "CONFIG GET maxmemory",
    "CONFIG GET *", "CONFIG REWRITE", "CONFIG RESETSTAT", "CONFIG SET maxmemory 1gb",
    "CONFIG SET notify-keyspace-events KEA", "INFO", "INFO commandstats", "FUNCTION LIST",
    "FUNCTION DUMP", "FUNCTION STATS", "FUNCTION FLUSH", "FUNCTION DELETE lib", "SCRIPT FLUSH",
    "SCRIPT EXISTS abc", "SCRIPT LOAD return(1)", "DEBUG DIGEST", "FLUSHALL", "FLUSHDB",
    "SWAPDB 0 1", "BGSAVE", "BGREWRITEAOF", "SAVE", "WAIT 0 0", "CLIENT LIST", "CLIENT INFO",
    "CLIENT KILL ID 99999", "CLIENT NO-EVICT ON", "CLIENT TRACKING ON", "RENAME a b", "COPY a b",
    "MSET a 1 b 2 c 3", "BLPOP a b c 1", "XREAD BLOCK 100 STREAMS a b $ $", "SUNIONSTORE a b c",
    "SORT a BY w_* STORE b", "EVAL return(1) 0", "EVAL return(1) 3 a b c", "WATCH a b c",
    "SUBSCRIBE a", "PSUBSCRIBE a*", "SSUBSCRIBE a", "UNSUBSCRIBE", "PUBLISH a x",
    "PUBSUB CHANNELS", "MONITOR", "MODULE LIST", "OBJECT FREQ a", "COMMAND COUNT", "TIME",
]  # fmt: skip


def test_everything_is_answered_while_a_script_runs(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    """With BUSY, or with what can be known without the instance that runs it."""
    flags = ["--server", stock_server.path, "--instances", "3", "--enable-debug-command", "yes"]
    running = threadis(*flags)
    admin, script = (Connection(("127.0.0.1", running.port)) for _ in range(2))
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    script.send(pack("EVAL", FOREVER, 1, "a"))
    until(lambda: admin.ask("GET", "a").raw.startswith(b"-BUSY"), "it runs")
    for line in ASKED:
        client = Connection(("127.0.0.1", running.port))
        assert b"internal error" not in client.ask(*line.split()).raw, line
        client.close()
    assert admin.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    assert "Traceback" not in running.log()
    for connection in (admin, script):
        connection.close()


SUBSCRIBERS = (("SUBSCRIBE", "c"), ("PSUBSCRIBE", "p*"), ("SSUBSCRIBE", "s"))


def subscribe_while_a_script_begins(address: str | tuple[str, int]) -> list[bytes]:
    """What clients are told who subscribe before it runs too long, and who is subscribed then."""
    admin, script, late, earlier = (Connection(address) for _ in range(4))
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "2000").raw == b"+OK\r\n"
    assert earlier.ask("SUBSCRIBE", "before").raw.startswith(b"*3")
    script.send(pack("EVAL", FOREVER, 1, "k"))
    time.sleep(0.5)  # no server says anything before
    clients = [Connection(address) for _ in SUBSCRIBERS]
    for client, words in zip([*clients, earlier], [*SUBSCRIBERS, ("SUBSCRIBE", "c")], strict=True):
        client.send(pack(*words))
    for line in ("SUBSCRIBE c", "SUBSCRIBE d c", "PSUBSCRIBE c"):
        earlier.send(pack(*line.split()))
    told = [client.read().raw[:5] for client in [*clients, *[earlier] * 4]]
    until(lambda: late.ask("SCRIPT", "KILL").raw == b"+OK\r\n", "it is killed")
    assert script.read().is_error
    told += [client.ask("PING").raw for client in clients]
    for what in ("CHANNELS", "SHARDCHANNELS", "NUMPAT"):
        told.append(late.ask("PUBSUB", what).raw)
    told.append(late.ask("PUBLISH", "before", "x").raw)
    told.append(earlier.read().raw)
    for client, words in zip(clients, SUBSCRIBERS, strict=True):  # now they may
        told.append(client.ask(*words).raw)
        told.append(late.ask("EVAL", "redis.call('PUBLISH', 'p1', 'x')", 0).raw)
    told.append(clients[1].read().raw)
    for connection in (admin, script, late, earlier, *clients):
        connection.close()
    return told


def is_as_on_stock(
    running: Threadis,
    stock_server: ServerBinary,
    folder: Path,
    program: Callable[[Address], object],
) -> None:
    """What a program finds out at an address is the same here and there."""
    with bare_server(stock_server.path, folder) as bare:
        ours = program(("127.0.0.1", running.port))
        stock = program(bare)
    assert ours == stock


def test_who_subscribes_does_not_wait_for_a_script(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, tmp_path: Path
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "3", "--save", "")
    is_as_on_stock(running, stock_server, tmp_path, subscribe_while_a_script_begins)
    assert "Traceback" not in running.log()


TELLS = """
redis.call('SET', KEYS[1], 1) redis.call('PUBLISH', 'news', 'one')
for i = 1, 1e8 do local n = i end
redis.call('SET', KEYS[1], 2) redis.call('PUBLISH', 'news', 'two')
"""


def heard_of_a_script(address: str | tuple[str, int]) -> list[list[bytes]]:
    """What subscribers hear of a script that runs too long, while others ask its server."""
    admin, script, late, events, news, other = (Connection(address) for _ in range(6))
    changes = ("lua-time-limit", "10", "notify-keyspace-events", "E$")
    assert admin.ask("CONFIG", "SET", *changes).raw == b"+OK\r\n"
    events.ask("PSUBSCRIBE", "__keyevent@*__:set")
    news.ask("SUBSCRIBE", "news")
    script.send(pack("EVAL", TELLS, 1, "k"))
    until(lambda: late.ask("GET", "k").raw.startswith(b"-BUSY"), "it runs")
    for _ in range(3):
        assert late.ask("GET", "k").raw.startswith(b"-BUSY")
        assert other.ask("SUBSCRIBE", "others").raw.startswith(b"-BUSY")
    assert script.read().raw == b"$-1\r\n"
    assert late.ask("SET", "k", "3").raw == b"+OK\r\n"
    assert other.ask("SUBSCRIBE", "others").raw.startswith(b"*3")
    late.ask("EVAL", "redis.call('PUBLISH', 'others', 'three')", 0)
    found = [[one.read().raw for _ in range(count)] for one, count in ((events, 3), (news, 2))]
    found.append([other.read().raw])
    for connection in (admin, script, late, events, news, other):
        connection.close()
    return found


def test_what_a_script_tells_is_heard_however_long_it_runs(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, tmp_path: Path
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "3", "--save", "")
    is_as_on_stock(running, stock_server, tmp_path, heard_of_a_script)
    assert "the connection was lost" not in running.log()


DELETES = " redis.call('DEL', unpack(KEYS))"
LOOPS = """#!lua name=loops
redis.register_function('loop', function() while true do end end)
"""


@pytest.mark.parametrize(
    "call", [("EVAL", FOREVER + DELETES), ("FCALL", "loop")], ids=lambda call: call[0]
)
def test_everyone_is_told_in_the_servers_own_words(
    threadis: Callable[..., Threadis],
    stock_server: ServerBinary,
    tmp_path: Path,
    call: tuple[str, str],
) -> None:
    """At its instance, and behind its locks elsewhere; with several words for one state."""
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")
    kill = "SCRIPT" if call[0] == "EVAL" else "FUNCTION"
    with bare_server(stock_server.path, tmp_path) as bare:
        admin, script = (Connection(bare) for _ in range(2))
        assert admin.ask("FUNCTION", "LOAD", LOOPS).text == b"loops"
        assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
        script.send(pack(*call, 0))
        until(lambda: admin.ask("PING").is_error, "it runs")
        words = admin.ask("PING").raw
        assert admin.ask(kill, "KILL").raw == b"+OK\r\n"
        admin.close()
        script.close()
    keys = [next(keys_of(index, 4)).decode() for index in range(4)]
    script, admin = (Connection(("127.0.0.1", running.port)) for _ in range(2))
    assert admin.ask("FUNCTION", "LOAD", LOOPS).text == b"loops"
    assert admin.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    script.send(pack(*call, len(keys), *keys))
    until(lambda: admin.ask("PING").is_error, "it runs")
    asked = [
        *(("GET", key) for key in keys), ("MGET", *keys), ("RENAME", keys[0], keys[1]), ("PING",),
        ("SUBSCRIBE", "channel"), ("SET", keys[3], "x" * 3_000_000), ("BLPOP", *keys, "0.01"),
        ("INFO",), ("SINTERSTORE", *keys),
    ]  # fmt: skip
    told = set()
    for question in asked:
        client = Connection(("127.0.0.1", running.port))
        reply = client.ask(*question).raw
        if reply.startswith(b"-BUSY"):
            assert reply == words, question[0]
            told.add(question[0])
        client.close()
    assert told >= {"GET", "MGET", "RENAME", "PING", "SUBSCRIBE", "SINTERSTORE"}
    assert admin.ask(kill, "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    script.close()
    admin.close()
