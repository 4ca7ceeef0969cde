"""Sessions and connections: what is one client's stays its own; whatever way a client ends, or
does not read, or comes too often, the others are served and nothing is left behind."""

import itertools
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from conftest import Threadis
from raw import Raw, bulk, command, cpu_seconds, keys_of, open_files, resident
from threadis.coordinator.instances import links
from waiting import until

INSTANCES = 4
MB = 1024 * 1024
LINKS = links.KEEP * INSTANCES  # the coordinator keeps so many connections at most
KEYS = [next(keys_of(index, INSTANCES)) for index in range(INSTANCES)]

Start = Callable[..., Threadis]


@pytest.fixture
def running(threadis: Start) -> Threadis:
    return threadis("--instances", str(INSTANCES), "--workers", "2", "--save", "")


def connect(running: Threadis, receive_buffer: int = 0) -> Raw:
    return Raw(("127.0.0.1", running.port), receive_buffer)


def lanes(running: Threadis, field: str = "threadis_lanes") -> int:
    with running.client() as client:
        return int(client.info("threadis")[field])


def files_besides_lanes(running: Threadis) -> int:
    """Open descriptors of the proxy, after every connection of its own has been needed once."""
    with running.client() as client, running.client() as other:  # one on each worker
        for key in KEYS:
            assert client.get(key) == other.get(key)
        return open_files(running.proxy_pid()) - int(client.info("threadis")["threadis_lanes"])


def test_what_one_client_sets_no_other_sees(running: Threadis) -> None:
    changes = [
        command("SELECT", 5),
        command("HELLO", 3),
        command("CLIENT", "SETNAME", "one"),
        command("CLIENT", "NO-TOUCH", "ON"),
        command("CLIENT", "NO-EVICT", "ON"),
        command("CLIENT", "SETINFO", "LIB-NAME", "one"),
    ]
    look = command("CLIENT", "GETNAME") + command("GET", KEYS[0]) + command("CONFIG", "GET", "hz")
    for order in list(itertools.permutations(changes))[::90]:
        with connect(running) as one, connect(running) as two:
            assert two.ask("SET", KEYS[0], "zero") == b"+OK\r\n"
            one.send(b"".join(order) + command("SET", KEYS[0], "five") + command("QUIT"))
            two.send(look * 20)
            for _ in range(20):
                assert two.reply() == b"$-1\r\n"
                assert two.reply() == bulk(b"zero")
                assert two.reply().startswith(b"*2\r\n")  # RESP2
            one.wait_for_end()
            information = two.ask("CLIENT", "INFO")
            assert b"lib-name=one" not in information
            for words in (b" db=0 ", b" resp=2", b" name= ", b" flags=N "):
                assert words in information
            assert two.ask("GET", KEYS[0]) == bulk(b"zero")
        with connect(running) as three:  # perhaps in the place of the first
            three.send(look)
            assert three.reply() == b"$-1\r\n"
            assert three.reply() == bulk(b"zero")


def test_select_in_a_pipeline_keeps_order_and_database(running: Threadis) -> None:
    content, answer = b"", b""
    for turn in range(200):
        db = turn % 16
        content += command("SELECT", db)
        answer += b"+OK\r\n"
        for key in KEYS:
            value = b"%d" % turn
            content += command("SET", key, value) + command("GET", key)
            answer += b"+OK\r\n" + bulk(value)
        content += command("MGET", *KEYS) + command("DBSIZE")
        answer += b"*4\r\n" + bulk(b"%d" % turn) * 4 + b":4\r\n"
    with connect(running) as client:
        client.send(content)
        assert client.exactly(len(answer)) == answer
    with running.client() as reader:
        for db in range(16):
            reader.execute_command("SELECT", db)
            last = max(turn for turn in range(200) if turn % 16 == db)
            assert reader.mget(KEYS) == [b"%d" % last] * INSTANCES


@pytest.mark.parametrize("count", [1, 100, 20_000])
def test_after_a_half_close_all_replies_come_then_the_end(running: Threadis, count: int) -> None:
    with connect(running) as client:
        client.send(command("SET", KEYS[0], "v" * 100))
        client.send(b"".join(command("GET", KEYS[0]) for _ in range(count)))
        client.send(command("MGET", *KEYS) + b"*1\r\n$4\r\nPI")  # and half a command
        client.half_close()
        expected = b"+OK\r\n" + bulk(b"v" * 100) * count
        expected += b"*4\r\n" + bulk(b"v" * 100) + b"$-1\r\n" * 3
        assert client.rest() == expected


def test_quit_in_a_pipeline_ends_it_there(running: Threadis) -> None:
    for word in (command("QUIT"), b"quit\r\n"):
        with connect(running) as client:
            before = b"".join(command("SET", key, "1") for key in KEYS) * 10
            client.send(before + word + command("SET", "after", "x") * 100)
            assert client.rest() == b"+OK\r\n" * 41
        with connect(running) as client:
            assert client.ask("EXISTS", "after") == b":0\r\n"
            assert client.ask("RESET") == b"+RESET\r\n"


def test_resets_at_any_point_leave_the_others_and_nothing_behind(running: Threadis) -> None:
    large = b"x" * 300_000
    with connect(running) as other:
        assert other.ask("SET", KEYS[0], large) == b"+OK\r\n"
        other.send(b"".join(command("GET", key) for key in KEYS[1:]))
        assert other.exactly(15) == b"$-1\r\n" * 3
        files_besides_lanes(running)  # opens what is opened once
        files, open_lanes = files_besides_lanes(running), lanes(running)
        ends = [
            command("GET", KEYS[0]) * 5,  # mid-reply
            command("SET", KEYS[1], large)[:100_000],  # mid-bulk
            command("MGET", *KEYS) * 50 + b"*2\r\n$3",  # mid-pipeline
            command("CONFIG", "GET", "*") + command("GET", KEYS[0]),  # at the coordinator
            command("SELECT", 1)[:9],
        ]
        for turn in range(200):
            victim = connect(running)
            victim.send(ends[turn % len(ends)])
            other.send(command("ECHO", turn) + command("GET", KEYS[1 + turn % 3]))
            victim.reset()
            assert other.reply() == bulk(b"%d" % turn)
            assert other.reply() == b"$-1\r\n"
        assert other.ask("GET", KEYS[0]) == bulk(large)
        until(lambda: files_besides_lanes(running) <= files + LINKS, "every descriptor is closed")
        assert lanes(running) <= 2 * open_lanes  # the other worker has as many, at most
        assert lanes(running, "threadis_lanes_broken") == 0


def test_one_client_too_many(running: Threadis) -> None:
    with running.client() as admin, ExitStack() as stack:
        admin.config_set("maxclients", 10)
        clients = [stack.enter_context(connect(running)) for _ in range(9)]
        for client in clients:
            assert client.ask("PING") == b"+PONG\r\n"
        with connect(running) as refused:
            assert refused.rest() == b"-ERR max number of clients reached\r\n"
        clients[0].socket.close()
        until(lambda: admin.info("clients")["connected_clients"] == 9, "one has gone")
        with connect(running) as accepted:
            assert accepted.ask("PING") == b"+PONG\r\n"


def test_idle_clients_are_closed(running: Threadis) -> None:
    with running.client() as admin, connect(running) as idle, connect(running) as half:
        half.send(b"*2\r\n$3\r\nGET\r\n")
        admin.config_set("timeout", 1)
        begin = time.monotonic()
        with connect(running) as busy:
            idle.socket.settimeout(0.05)
            while True:
                assert busy.ask("GET", KEYS[0]) == b"$-1\r\n"
                try:
                    assert idle.rest() == b""
                    break
                except TimeoutError:
                    assert time.monotonic() - begin < 10.0
            assert time.monotonic() - begin > 1.0
            assert half.rest() == b""
            assert busy.ask("PING") == b"+PONG\r\n"


def test_without_a_password_only_this_machine_is_served(threadis: Start) -> None:
    """The other machine is a network namespace at the end of a cable."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("needs root and the ip command, for a network namespace")
    ip = "ip -batch -"
    name = f"t{os.getpid()}"
    made = _run(
        ip,
        f"netns add {name}\nlink add {name}a type veth peer name {name}b netns {name}\n"
        f"addr add 198.18.77.1/30 dev {name}a\nlink set {name}a up\n",
    )
    inside = f"addr add 198.18.77.2/30 dev {name}b\nlink set {name}b up\n"
    try:
        if made.returncode or _run(f"ip -n {name} -batch -", inside).returncode:
            pytest.skip(f"no network namespace here: {made.stderr.strip()}")
        running = threadis("--instances", "2", "--host", "*")
        ask = (
            "import socket;"
            f"s=socket.create_connection(('198.18.77.1',{running.port}),5);"
            "s.sendall(b'PING\\r\\n');print(s.recv(1000))"
        )
        peer = f"ip netns exec {name} python3 -c"
        refused = subprocess.run([*peer.split(), ask], capture_output=True, text=True, check=True)
        assert "-DENIED thREaDIS is running in protected mode" in refused.stdout
        with running.client() as client:
            assert client.ping()
            client.config_set("requirepass", "secret")
            served = subprocess.run([*peer.split(), ask], capture_output=True, text=True)
            assert "-NOAUTH" in served.stdout, served.stderr
    finally:
        _run(ip, f"link del {name}a\nnetns del {name}\n")


def _run(words: str, text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words.split(), input=text, capture_output=True, text=True)


def test_other_loopback_addresses_are_this_machine(threadis: Start) -> None:
    running = threadis("--instances", "2", "--host", "127.0.0.2 ::1")
    for host in ("127.0.0.2", "::1"):
        with socket.create_connection((host, running.port), 5) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"


def test_out_of_descriptors_those_who_are_here_go_on(running: Threadis) -> None:
    proxy = running.proxy_pid()
    with ExitStack() as stack, connect(running) as here:
        for key in KEYS:
            assert here.ask("SET", key, key) == b"+OK\r\n"
        before = resource.prlimit(proxy, resource.RLIMIT_NOFILE)
        files = open_files(proxy)
        resource.prlimit(proxy, resource.RLIMIT_NOFILE, (files + 8, before[1]))
        clients = [stack.enter_context(connect(running)) for _ in range(200)]
        until(lambda: open_files(proxy) >= files + 8, "the descriptors are used up")
        begin, used = time.monotonic(), cpu_seconds(proxy)
        answered = 0
        while time.monotonic() - begin < 1.5:
            assert here.ask("GET", KEYS[answered % INSTANCES]) == bulk(KEYS[answered % INSTANCES])
            answered += 1
            time.sleep(0.01)  # a pace, not a wait: what is measured is the CPU of doing little
        assert answered > 50
        assert cpu_seconds(proxy) - used < 0.4  # no busy loop
        resource.prlimit(proxy, resource.RLIMIT_NOFILE, before)
        begin = time.monotonic()
        for client in clients:
            assert client.ask("PING") == b"+PONG\r\n"
        assert time.monotonic() - begin < 3.0  # all at once, not some a second
    until(lambda: open_files(proxy) <= files, "every descriptor is closed")


def test_one_who_does_not_read_costs_a_bounded_amount(running: Threadis) -> None:
    proxy, count, size = running.proxy_pid(), 20_000, 16_000
    with connect(running) as other, connect(running, receive_buffer=8192) as slow:
        values = [bytes([65 + index]) * size for index in range(INSTANCES)]
        for key, value in zip(KEYS, values, strict=True):
            assert other.ask("SET", key, value) == b"+OK\r\n"
        before = resident(proxy)
        packet = b"".join(command("GET", key) for key in KEYS)
        slow.socket.setblocking(False)
        content, sent = packet * (count // INSTANCES), 0
        deadline = time.monotonic() + 2.0
        most, slowest = 0, 0.0
        while time.monotonic() < deadline and sent < len(content):
            try:
                sent += slow.socket.send(content[sent : sent + 65_536])
            except BlockingIOError:
                begin = time.monotonic()
                assert other.ask("GET", KEYS[1]) == bulk(values[1])
                slowest = max(slowest, time.monotonic() - begin)
            most = max(most, resident(proxy) - before)
        assert most < 100 * MB  # 320 MB are asked for
        assert slowest < 1.0
        slow.socket.settimeout(20)
        rest = memoryview(content)[sent:]
        for number in range(count):
            if rest and number % 100 == 0:
                slow.send(bytes(rest[:4000]))
                rest = rest[4000:]
            assert slow.reply() == bulk(values[number % INSTANCES])
        assert slow.ask("PING") == b"+PONG\r\n"
        assert lanes(running, "threadis_lanes_broken") == 0


def test_a_storm_of_connections_leaves_nothing(running: Threadis) -> None:
    with connect(running) as other:
        for key in KEYS:
            assert other.ask("GET", key) == b"$-1\r\n"
        files_besides_lanes(running)  # opens what is opened once
        files, open_lanes = files_besides_lanes(running), lanes(running)
        for turn in range(1000):
            with connect(running) as client:
                if turn % 3:
                    client.send(command("GET", KEYS[turn % INSTANCES]))
                if turn % 3 == 2:
                    assert client.reply() == b"$-1\r\n"
        until(lambda: files_besides_lanes(running) <= files + LINKS, "every descriptor is closed")
        assert lanes(running) <= 2 * open_lanes  # the other worker has as many, at most
        assert other.ask("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("last", [("EVAL", "return 1", 0), ("DBSIZE",), ("CONFIG", "GET", "hz")])
def test_a_transaction_ends_when_its_client_says_nothing_more(
    running: Threadis, last: tuple[str | int, ...]
) -> None:
    with connect(running) as silent, connect(running) as other:
        for line in [("MULTI",), ("SET", KEYS[0], 1), ("SELECT", 1), last, ("EXEC",)]:
            reply = silent.ask(*line)
        assert reply.startswith(b"*3\r\n")
        assert other.ask("SET", KEYS[0], 2) == b"+OK\r\n"
        assert other.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
        assert other.ask("FLUSHALL") == b"+OK\r\n"
