"""Scripts that workers run by themselves: which ones, and that nobody can tell the difference."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from conftest import Threadis
from known_scripts import STRAY, ask, busy, learn, raw, run_here
from raw import bulk, command, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
MB = 1024 * 1024
A, B = (next(keys_of(index, INSTANCES)) for index in (0, 1))
INCR = "return redis.call('INCR', KEYS[1])"
SLOW = "if ARGV[1] then while true do end end return 1"

Start = Callable[..., Threadis]


@pytest.fixture(scope="module")
def shared(
    stock_server: ServerBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Threadis]:
    folder = tmp_path_factory.mktemp("scripts")
    arguments = ["--server", stock_server.path, "--instances", str(INSTANCES), "--save", ""]
    started = Threadis(folder / "data", folder / "serve.log", [*arguments, "--workers", "2"])
    try:
        yield started.wait_until_serving()
    finally:
        started.close()


@pytest.fixture
def client(shared: Threadis) -> Iterator[redis.Redis]:
    with shared.client(single_connection_client=True) as one:
        one.flushall()
        one.script_flush()
        yield one


def test_what_is_known_to_keep_to_its_keys_runs_without_the_coordinator(
    client: redis.Redis,
) -> None:
    sha = learn(client, INCR, A)
    client.config_resetstat()
    before = run_here(client)
    for key in (A, B, b"{%s}" % A, b"with{tag}in", b"[a-b]*?\\^"):
        client.delete(key)
        assert [client.evalsha(sha, 1, key), client.eval(INCR, 1, key)] == [1, 2]
    assert run_here(client) == before + 10
    for key in (b"", b"sp ace", b"new\nline"):  # no pattern is exactly these
        assert client.evalsha(sha, 1, key) == 1
    assert client.evalsha(sha.upper(), 1, A) == 3
    assert client.evalsha(sha, 1, "{x}" + "long" * 20_000) == 1
    assert run_here(client) == before + 10
    counted = client.info("commandstats")
    assert counted["cmdstat_evalsha"]["calls"] == 10
    assert counted["cmdstat_eval"]["calls"] == 5
    assert {name for name in counted if "acl" in name or "auth" in name} == set()
    assert "cmdstat_exec" not in counted
    assert client.acl_log() == []
    assert client.acl_users() == ["default"]


def test_errors_are_the_servers_and_count_once(client: redis.Redis) -> None:
    sha = learn(client, "return redis.call('INCRBY', KEYS[1], ARGV[1] or 1)", A)
    client.config_resetstat()
    before = run_here(client)
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.evalsha(sha, 1, A, "x")
    assert run_here(client) == before + 1
    counted = client.info("commandstats")["cmdstat_evalsha"]
    assert (counted["calls"], counted["failed_calls"]) == (1, 1)
    assert client.info("errorstats") == {"errorstat_ERR": {"count": 1}}


def test_what_may_touch_an_undeclared_key_is_never_run_by_workers(client: redis.Redis) -> None:
    """Not even after a hundred runs that did not: the next one might."""
    sha = str(client.script_load(STRAY))
    client.config_resetstat()
    before = run_here(client)
    for number in range(100):
        assert client.evalsha(sha, 1, A) == number + 1
    assert client.evalsha(sha, 1, A, B) == 101
    assert client.get(B) == b"1"
    assert run_here(client) == before
    counted = client.info("commandstats")["cmdstat_evalsha"]
    assert (counted["calls"], counted["failed_calls"]) == (101, 0)
    assert client.acl_log() == []


def test_an_undeclared_key_with_the_same_hash_tag_is_no_stranger(client: redis.Redis) -> None:
    script = "redis.call('SET', KEYS[1] .. ':more', ARGV[1] or 0) return 1"
    sha = learn(client, script, b"{t}1")
    before = run_here(client)
    assert client.evalsha(sha, 1, "{t}1", 5) == 1
    assert client.get("{t}1:more") == b"5"
    assert run_here(client) == before + 1
    assert client.evalsha(sha, 1, A, 7) == 1  # without a tag it may live elsewhere
    assert client.get(A + b":more") == b"7"
    assert run_here(client) == before + 1


def test_the_order_of_a_pipeline(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    before = run_here(client)
    with raw(shared) as one:
        for turn in range(50):
            base = turn * 10
            one.send(
                command("SET", A, base)
                + command("EVALSHA", sha, 1, A)
                + command("GET", A)
                + command("EVALSHA", sha, 1, A)
                + command("EVALSHA", sha, 1, B)
                + command("MGET", A, B)
                + command("CLIENT", "REPLY", "SKIP")
                + command("EVALSHA", sha, 1, A)
                + command("GET", A)
            )
            assert one.reply() == b"+OK\r\n"
            assert one.reply() == b":%d\r\n" % (base + 1)
            assert one.reply() == bulk(b"%d" % (base + 1))
            assert one.reply() == b":%d\r\n" % (base + 2)
            assert one.reply() == b":%d\r\n" % (turn + 1)
            assert one.reply() == b"*2\r\n" + bulk(b"%d" % (base + 2)) + bulk(b"%d" % (turn + 1))
            assert one.reply() == bulk(b"%d" % (base + 3))
        one.send(command("CLIENT", "REPLY", "OFF") + command("EVALSHA", sha, 1, A))
        one.send(command("CLIENT", "REPLY", "ON") + command("GET", A))
        assert one.reply() == b"+OK\r\n"
        assert one.reply() == bulk(b"494")
    assert run_here(client) == before + 201


def test_watched_keys_and_transactions(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    with shared.client() as other:
        pipe = other.pipeline()
        pipe.watch(A)
        client.evalsha(sha, 1, A)
        pipe.multi()
        pipe.set(A, "lost")
        with pytest.raises(redis.WatchError):
            pipe.execute()
        pipe = other.pipeline(transaction=True)
        pipe.set(A, 5)
        pipe.evalsha(sha, 1, A)
        pipe.get(A)
        assert pipe.execute() == [True, 6, b"6"]


def test_databases(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    with raw(shared) as one:
        assert one.ask("SELECT", 3) == b"+OK\r\n"
        before = run_here(client)
        assert one.ask("EVALSHA", sha, 1, A) == b":1\r\n"
        assert run_here(client) == before + 1
        assert one.ask("GET", A) == bulk(b"1")
        assert one.ask("SELECT", 0) == b"+OK\r\n"
        assert one.ask("EVALSHA", sha, 1, A) == b":3\r\n"


def test_replies_of_resp3(shared: Threadis, client: redis.Redis) -> None:
    kinds = (
        ("return {map={a={double=1.5}}}", b"%1\r\n$1\r\na\r\n,1.5\r\n"),
        ("return {double=3.25}", b",3.25\r\n"),
        ("return false", b"_\r\n"),
        ("redis.setresp(3) return redis.call('GET', KEYS[1])", b"_\r\n"),
        ("redis.setresp(3) return true", b"#t\r\n"),
        ("return {big_number='123456789012345678901234567890'}",
         b"(123456789012345678901234567890\r\n"),
        ("return {set={a=true}}", b"~1\r\n$1\r\na\r\n"),
    )  # fmt: skip
    with raw(shared) as one:
        one.send(command("HELLO", 3))
        until(lambda: one.socket.recv(65536), "it answers")
        for script, expected in kinds:
            before = run_here(client)
            for _ in range(3):
                one.send(command("EVAL", script, 1, "none"))
                assert one.exactly(len(expected)) == expected, script
            assert run_here(client) == before + 2


def test_users(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    ask(client, "ACL", "SETUSER", "all", "on", ">pw", "+@all", "~*", "&*")
    ask(client, "ACL", "SETUSER", "some", "on", ">pw", "+@all", f"~{A.decode()}")
    with shared.client(username="all", password="pw") as other:
        before = run_here(client)
        assert other.evalsha(sha, 1, B) == 1
        assert run_here(client) == before + 1
    with shared.client(username="some", password="pw") as other:
        assert other.evalsha(sha, 1, A) == 3
        with pytest.raises(redis.exceptions.NoPermissionError):
            other.evalsha(sha, 1, B)
        assert run_here(client) == before + 1
    ask(client, "ACL", "DELUSER", "all", "some")
    ask(client, "ACL", "LOG", "RESET")


def test_script_flush(client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    client.script_flush()
    for key in (A, B):
        with pytest.raises(redis.exceptions.NoScriptError):
            client.evalsha(sha, 1, key)
    assert client.eval(INCR, 1, A) == 3
    assert [client.evalsha(sha, 1, key) for key in (A, B)] == [4, 1]


def test_pause_monitor_and_tracking(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    with raw(shared) as one:
        client.client_pause(60_000, all=False)
        one.send(command("EVALSHA", sha, 1, A))
        assert client.get(A) == b"2"
        client.client_unpause()
        assert one.reply() == b":3\r\n"
        begin: Callable[[], redis.client.Monitor] = client.monitor
        with begin() as monitor:
            assert one.ask("EVALSHA", sha, 1, A) == b":4\r\n"
            lines = [monitor.next_command() for _ in range(2)]
            assert [line["command"].split()[0].lower() for line in lines] == ["evalsha", "incr"]
            assert lines[1]["client_type"] == "lua"
    with raw(shared) as ears, raw(shared) as one:
        number = int(ears.ask("CLIENT", "ID")[1:])
        assert ears.ask("SUBSCRIBE", "__redis__:invalidate").startswith(b"*3")
        assert one.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number, "NOLOOP") == b"+OK\r\n"
        assert one.ask("GET", A) == bulk(b"4")
        assert one.ask("EVALSHA", sha, 1, A) == b":5\r\n"  # not told
        assert one.ask("GET", A) == bulk(b"5")
        assert client.evalsha(sha, 1, A) == 6
        told = b"*3\r\n" + bulk(b"message") + bulk(b"__redis__:invalidate")
        assert ears.reply() == told + b"*1\r\n" + bulk(A)


def test_who_waits_is_served_before_the_script_is_answered(
    shared: Threadis, client: redis.Redis
) -> None:
    sha = learn(client, "return redis.call('RPUSH', KEYS[1], 'x')", A)
    client.delete(A)
    with raw(shared) as one:
        one.send(command("BLPOP", A, 0))
        until(lambda: client.info("clients")["blocked_clients"] == 1, "it waits")
        assert client.evalsha(sha, 1, A) == 1
        assert client.llen(A) == 0
        assert one.reply() == b"*2\r\n" + bulk(A) + bulk(b"x")


def test_scripts_that_go_to_another_database_are_left_to_the_coordinator(
    client: redis.Redis,
) -> None:
    """Their keys there may be locked; workers look for that in one database."""
    sha = str(client.script_load("redis.call('select', 3) return redis.call('INCR', KEYS[1])"))
    before = run_here(client)
    assert [client.evalsha(sha, 1, A) for _ in range(3)] == [1, 2, 3]
    assert run_here(client) == before


def test_scripts_that_publish_are_left_to_the_coordinator(
    shared: Threadis, client: redis.Redis
) -> None:
    """So that a message of the client's next PUBLISH does not overtake the script's."""
    sha = str(client.script_load("return redis.call('PUBLISH', 'c', ARGV[1])"))
    before = run_here(client)
    with raw(shared) as one:
        assert one.ask("SUBSCRIBE", "c").startswith(b"*3")
        for number in range(50):
            client.evalsha(sha, 1, A, number * 2)
            client.publish("c", str(number * 2 + 1))
        heard = [one.reply().split(b"\r\n")[-2] for _ in range(100)]
        assert heard == [b"%d" % number for number in range(100)]
    assert run_here(client) == before


def test_no_script_sees_half_of_a_write_over_several_instances(
    shared: Threadis, client: redis.Redis
) -> None:
    keys = (b"{%s}1" % A, b"{%s}2" % A)
    sha = learn(client, "return redis.call('MGET', KEYS[1], KEYS[2])", *keys)
    before = run_here(client)
    is_over = threading.Event()

    def write() -> None:
        with shared.client() as other:
            for number in range(200):
                value = str(number)
                other.mset({keys[0]: value, B: value})
                other.mset({keys[0]: value, keys[1]: value, B: value})
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    with shared.client() as other:
        while not is_over.is_set():
            one, two = client.evalsha(sha, 2, *keys)
            there = other.get(B)
            assert int(one or -1) >= int(two or -1)
            assert int(there or -1) >= int(one or -1)
            seen += 1
    writer.join()
    assert run_here(client) == before + seen


def test_more_clients_than_scripts_are_let_abreast(shared: Threadis, client: redis.Redis) -> None:
    sha = learn(client, INCR, A)
    client.delete(A)
    before = run_here(client)
    clients, each = 60, 40

    def work(_: int) -> list[int]:
        with shared.client(single_connection_client=True) as one:
            return [int(one.evalsha(sha, 1, A)) for _ in range(each)]

    with ThreadPoolExecutor(clients) as pool:
        numbers = list(pool.map(work, range(clients)))
    assert sorted(itertools.chain(*numbers)) == list(range(1, clients * each + 1))
    assert all(one == sorted(one) for one in numbers)
    assert run_here(client) == before + clients * each


def test_at_maxmemory_a_script_runs_as_far_as_the_server_lets_it(client: redis.Redis) -> None:
    script = (
        "if ARGV[1] then return redis.call('SET', KEYS[1], 1) end return redis.call('DEL', KEYS[1])"
    )
    sha = learn(client, script, A)
    client.set(A, "v")
    client.config_set("maxmemory", 1)
    try:
        for _ in range(3):
            assert client.evalsha(sha, 1, A) in (0, 1)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.evalsha(sha, 1, A, "write")
    finally:
        client.config_set("maxmemory", 0)
    assert client.get(A) is None
    assert client.evalsha(sha, 1, A, "write") == b"OK"


def test_where_there_is_no_memory_for_a_block_the_coordinator_runs_the_script(
    shared: Threadis, client: redis.Redis
) -> None:
    """A server out of memory queues nothing, but would run a script that only reads."""
    client.config_set("maxmemory", INSTANCES * 8 * MB)
    sha = learn(client, "return redis.call('STRLEN', KEYS[1])", A)
    client.config_resetstat()
    before = run_here(client)
    try:
        with raw(shared) as one:  # one write may go over the limit; nobody has been refused yet
            size = 20 * MB
            one.send(command("SETRANGE", A, size - 1, "x") + command("EVALSHA", sha, 1, A))
            assert [one.reply(), one.reply()] == [b":%d\r\n" % size] * 2
    finally:
        client.config_set("maxmemory", 0)
    assert run_here(client) == before + 1
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert client.info("errorstats") == {}


def test_a_script_that_runs_too_long_is_told_of_and_killed(
    shared: Threadis, client: redis.Redis
) -> None:
    client.config_set("lua-time-limit", 1000)
    sha = learn(client, SLOW, A)
    before = run_here(client)
    with raw(shared) as slow, raw(shared) as gone:
        slow.send(command("EVALSHA", sha, 1, A, "forever"))
        until(lambda: busy(client, "GET", A), "the instance says so")
        until(lambda: busy(client, "PING"), "we say so")
        for words in (("EVALSHA", sha, 1, A), ("MSET", A, 1, B, 1), ("BLPOP", A, 1)):
            assert busy(client, *words), words
        assert client.evalsha(sha, 1, B) == 1
        gone.send(command("EVALSHA", sha, 1, A))
        gone.reset()
        assert client.script_kill()
        assert slow.reply().startswith(b"-")
        assert slow.ask("EVALSHA", sha, 1, A) == b":1\r\n"
    assert run_here(client) >= before + 1

    def runs_here() -> bool:
        ran = run_here(client)
        client.evalsha(sha, 1, A)
        return run_here(client) > ran

    until(runs_here, "workers run scripts again")
    client.config_set("lua-time-limit", 5000)
