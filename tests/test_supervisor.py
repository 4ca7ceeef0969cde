"""thREaDIS as a whole: start, faults, stop. Real servers, the real proxy, real signals."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from conftest import STOP_LIMIT, Threadis
from threadis.supervisor import server_log
from threadis.supervisor.server import ServerBinary
from threadis.system import machine
from waiting import alive, children, until

Start = Callable[..., Threadis]
KEYS = [f"key:{number}" for number in range(64)]  # enough to lie on every instance


def answers(client: "redis.Redis", key: str) -> bool:
    """Whether a key's instance answers."""
    try:
        client.get(key)
    except redis.RedisError:
        return False
    return True


def fill(client: "redis.Redis") -> None:
    for key in KEYS:
        assert client.set(key, f"value of {key}")


def check(client: "redis.Redis") -> None:
    assert [client.get(key) for key in KEYS] == [f"value of {key}".encode() for key in KEYS]


def test_it_says_what_it_runs_and_where(
    threadis: Start, stock_server: ServerBinary, tmp_path: Path
) -> None:
    path = tmp_path / "c.sock"
    running = threadis(
        "--server", stock_server.path, "--instances", "2", "--workers", "1",
        "--unixsocket", str(path),
    )  # fmt: skip
    log = running.log()
    assert f"server   {stock_server.describe()}" in log
    for words in ("worker 0", "instance 0", "instance 1"):
        assert re.search(rf"^plan     CPU .*{words}", log, re.MULTILINE), log
    assert f"serving  127.0.0.1:{running.port}   (redis-cli -p {running.port})" in log
    with running.client() as client:
        fill(client)
        check(client)
    with redis.Redis(unix_socket_path=str(path)) as client:
        check(client)
    assert running.stop() == 0
    assert not path.exists()


def test_the_kernel_agrees_with_the_plan(threadis: Start) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    running = threadis("--instances", "2", "--workers", "2")
    for pid in running.instance_pids():
        tasks = Path(f"/proc/{pid}/task").iterdir()
        assert {len(os.sched_getaffinity(int(task.name))) for task in tasks} == {1}
    names = {
        (task / "comm").read_text().strip(): os.sched_getaffinity(int(task.name))
        for task in Path(f"/proc/{running.proxy_pid()}/task").iterdir()
    }
    assert {len(names["worker-0"]), len(names["worker-1"])} == {1}
    assert names["worker-0"] | names["worker-1"] <= set(cpus)
    assert "but the kernel lets it" not in running.log()


def affinities(running: Threadis) -> set[frozenset[int]]:
    """On which CPUs the threads of the instances and the workers may run."""
    pids = running.instance_pids()
    tids = [
        int(path.parent.name)
        for path in Path(f"/proc/{running.proxy_pid()}/task").glob("*/comm")
        if path.read_text().startswith("worker-")
    ]
    assert tids
    return {frozenset(os.sched_getaffinity(one)) for one in [*pids, *tids]}


def test_pinning_can_be_switched_off_and_cpus_be_named(threadis: Start) -> None:
    ours = os.sched_getaffinity(0)
    free = threadis("--pin", "no", "--instances", "2", "--workers", "2")
    assert affinities(free) == {frozenset(ours)}
    assert "any CPU   worker 0, worker 1, instance 0, instance 1" in free.log()
    assert "should run on" not in free.log()
    with free.client() as client:
        assert client.info("threadis")["instance0"]["cpu"] == "any"
    assert free.stop() == 0
    cpu = max(ours)
    tied = threadis("--pin", str(cpu), "--instances", "2", "--workers", "2")
    assert affinities(tied) == {frozenset({cpu})}
    assert machine.taken()[cpu] >= 4  # another one would go elsewhere


def test_a_killed_instance_costs_only_its_own_keys(
    threadis: Start, stock_server: ServerBinary
) -> None:
    running = threadis(
        "--server", stock_server.path, "--instances", "2",
        "--appendonly", "yes", "--set", "appendfsync=always",
    )  # fmt: skip
    with running.client() as client:
        fill(client)
        before = running.instance_pids()
        os.kill(before[1], signal.SIGKILL)
        until(lambda: running.instance_pids()[1:] not in ([], before[1:]), "a new process")
        until(lambda: all(answers(client, key) for key in KEYS), "all keys answer")
        check(client)
    assert running.instance_pids()[0] == before[0]
    assert "instance 1 died (signal 9, SIGKILL); restarting in" in running.log()
    assert running.stop() == 0


def test_a_stopped_instance_is_noticed_and_the_others_answer(threadis: Start) -> None:
    running = threadis("--instances", "2")
    with running.client() as client:
        fill(client)
        os.kill(running.instance_pids()[0], signal.SIGSTOP)
        until(lambda: "instance 0 does not answer: it is stopped" in running.log(), "the notice")
        before = time.monotonic()
        working = [key for key in KEYS if answers(client, key)]
        assert 0 < len(working) < len(KEYS)
        assert time.monotonic() - before < 2.0  # the others fail fast
        os.kill(running.instance_pids()[0], signal.SIGCONT)
        until(lambda: all(answers(client, key) for key in KEYS), "all keys answer")
        check(client)
    assert running.stop() == 0


def test_a_killed_proxy_comes_back_on_the_same_port(threadis: Start) -> None:
    running = threadis("--instances", "2")
    with running.client() as client:
        fill(client)
    before = running.proxy_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: not alive(before), "the proxy dies")
    with running.client() as client:
        until(lambda: answers(client, KEYS[0]), "the next one answers")
        check(client)
    assert running.proxy_pid() != before
    assert running.stop() == 0


def test_a_second_start_fails_at_once_and_changes_nothing(threadis: Start) -> None:
    first = threadis("--instances", "2")
    names = {str(path) for path in first.folder.rglob("*")}
    pids = first.instance_pids()
    second = threadis("--instances", "2", folder=first.folder, wait=False)
    assert second.process.wait(STOP_LIMIT) == 1
    assert f"is in use by another threadis (process {first.process.pid})" in second.log()
    with first.client() as client:
        fill(client)
        check(client)
    assert first.instance_pids() == pids
    assert {str(path) for path in first.folder.rglob("*")} == names
    assert first.stop() == 0


def test_a_port_in_use_is_refused_before_anything_is_made(threadis: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = threadis("--port", str(port), folder=tmp_path / "new", wait=False)
        assert running.process.wait(STOP_LIMIT) == 1
    assert f"threadis: port: {port} is in use on 127.0.0.1; choose another --port" in running.log()
    assert not (tmp_path / "new").exists()


def test_a_port_that_is_taken_between_bind_and_listen_is_told_in_one_line(
    threadis: Start,
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        running = threadis("--port", str(port), "--instances", "1", wait=False)
        until(lambda: "plan " in running.log(), "the port is bound")
        other.listen()
        assert running.process.wait(STOP_LIMIT) == 1
    told = [line for line in running.log().splitlines() if "listen" in line or "proxy" in line]
    assert len(told) == 1, running.log()
    assert told[0].startswith("threadis: cannot listen: "), told


def test_another_number_of_instances_is_refused(threadis: Start) -> None:
    first = threadis("--instances", "3")
    assert first.stop() == 0
    second = threadis("--instances", "2", folder=first.folder, wait=False)
    assert second.process.wait(STOP_LIMIT) == 1
    assert "start with --instances 3, or choose a new --dir" in second.log()
    third = threadis(folder=first.folder)  # auto: as the data says
    assert len(third.instance_pids()) == 3


def test_orphans_are_waited_for_where_nobody_else_would(tmp_path: Path) -> None:
    """As process 1 of a container: here, as the one that adopts what is left below it."""
    adopts = "import ctypes,os,sys; ctypes.CDLL(None).prctl(36,1,0,0,0);"
    running = Threadis(
        tmp_path / "data", tmp_path / "log", ["--instances", "1", "--save", ""],
        before=[sys.executable, "-c", f"{adopts} os.execv(sys.argv[1], sys.argv[1:])"],
    )  # fmt: skip
    try:
        running.wait_until_serving()
        with running.client() as client:
            client.config_set("rdb-key-save-delay", 10_000_000)  # microseconds
            client.set("key", "value")
            client.bgsave()
        server = running.instance_pids()[0]
        until(lambda: children(server), "a snapshot is being written")
        orphan = children(server)[0]
        os.kill(server, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan was waited for")
        until(lambda: running.instance_pids() not in ([], [server]), "the instance is back")
        assert running.stop() == 0
    finally:
        running.close()


def test_a_killed_supervisor_leaves_no_process(threadis: Start) -> None:
    running = threadis("--instances", "2", "--appendonly", "yes", "--set", "appendfsync=always")
    with running.client() as client:
        fill(client)
    pids = [*running.instance_pids(), running.proxy_pid()]
    running.process.kill()
    running.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), "no process is left")
    again = threadis("--appendonly", "yes", folder=running.folder)
    with again.client() as client:
        check(client)
    assert again.stop() == 0


def test_a_hang_up_stops_nothing(threadis: Start) -> None:
    """What a closed terminal, logrotate and ExecReload send; as redis-server, we take no notice."""
    running = threadis("--instances", "1", "--workers", "1")
    for pid in (running.process.pid, running.proxy_pid(), *running.instance_pids()):
        os.kill(pid, signal.SIGHUP)
    until(lambda: "SIGHUP: ignored" in running.log(), "it is said")
    with running.client() as client:
        assert client.set("k", "v")
    assert "back" not in running.log()
    assert "again" not in running.log()
    assert running.stop() == 0


def test_messages_have_the_time_in_utc(threadis: Start) -> None:
    running = threadis("--instances", "1", "--workers", "1")
    assert running.stop() == 0
    (line,) = [line for line in running.log().splitlines() if "received SIGTERM: stopping" in line]
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z INFO received SIGTERM: stopping", line
    )
    assert found, line
    shown = datetime.fromisoformat(f"{found[1]}+00:00")
    assert abs(datetime.now(UTC) - shown).total_seconds() < 3000  # no time zone is as near


def test_the_log_of_an_instance_is_bounded(threadis: Start, stock_server: ServerBinary) -> None:
    running = threadis("--server", stock_server.path, "--instances", "1", "--workers", "1")
    path = running.folder / "instance-0" / "server.log"
    with path.open("ab") as file:
        file.write(b"x" * server_log.LIMIT)
    old = path.with_name(server_log.OLD)
    until(old.exists, "it is put aside")
    assert old.stat().st_size > server_log.LIMIT
    with running.client() as client:
        client.bgsave()
        until(lambda: path.exists() and b"saving" in path.read_bytes().lower(), "a new one begins")
        assert client.set("k", "v")
    assert path.stat().st_size < server_log.LIMIT
    assert running.stop() == 0
    again = threadis("--server", stock_server.path, folder=running.folder)
    with again.client() as client:
        assert client.get("k") == b"v"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_and_leaves_nothing(threadis: Start, number: signal.Signals) -> None:
    running = threadis("--instances", "2")
    with running.client() as client:
        fill(client)
    port, pids = running.port, [*running.instance_pids(), running.proxy_pid()]
    running.process.send_signal(number)
    assert running.process.wait(STOP_LIMIT) == 0
    assert not any(alive(pid) for pid in pids)
    assert not (running.folder / "sockets").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    again = threadis(folder=running.folder)
    with again.client() as client:
        check(client)
    assert again.stop() == 0


def test_a_stop_during_the_start_leaves_nothing(threadis: Start) -> None:
    running = threadis("--instances", "2", wait=False)
    until(lambda: "data     " in running.log(), "the start has begun")
    assert running.stop() == 0, running.log()
    assert not (running.folder / "sockets").exists()


def test_servers_that_do_not_start_are_an_error_with_their_words(
    threadis: Start, tmp_path: Path
) -> None:
    module = tmp_path / "no-module.so"  # whether one can be loaded is known only when that is tried
    module.write_bytes(b"")
    module.chmod(0o755)
    running = threadis("--instances", "2", "--set", f"loadmodule={module}", wait=False)
    assert running.process.wait(STOP_LIMIT) == 1
    last = running.log().splitlines()[-1]
    assert last.startswith("threadis: no instance starts; instance 0 died (exit status 1)")
    assert module.name in last


def test_damaged_data_of_one_instance_costs_only_its_own_keys(threadis: Start) -> None:
    first = threadis("--instances", "2", "--appendonly", "yes")
    with first.client() as client:
        fill(client)
        manifest = first.folder / "instance-1" / "appendonlydir" / "appendonly.aof.manifest"
        manifest.write_bytes(b"")
        os.kill(first.instance_pids()[1], signal.SIGKILL)
        until(lambda: "instance 1 cannot start: dir: " in first.log(), "it is refused")
        working = [key for key in KEYS if answers(client, key)]
    assert 0 < len(working) < len(KEYS)
    assert f"{manifest} is damaged" in first.log()
    assert "is back" not in first.log()


def test_a_log_that_a_server_does_not_load_can_be_repaired(threadis: Start) -> None:
    first = threadis("--instances", "2", "--appendonly", "yes", "--set", "appendfsync=always")
    with first.client() as client:
        fill(client)
        log = first.folder / "instance-1" / "appendonlydir" / "appendonly.aof.1.incr.aof"
        os.kill(first.instance_pids()[1], signal.SIGSTOP)
        content = log.read_bytes()
        log.write_bytes(content + b"no command\r\n")
        os.kill(first.instance_pids()[1], signal.SIGKILL)
        until(lambda: "instance 1 died (exit status 1): dir: " in first.log(), "it dies")
        assert f"{log} is damaged (" in first.log()
        assert "or repair it with redis-check-aof --fix" in first.log()
        log.write_bytes(content)  # what that does
        until(lambda: "instance 1 is back" in first.log(), "it is back")
        until(lambda: all(answers(client, key) for key in KEYS), "all keys answer")
        check(client)


def test_an_instance_that_dies_while_it_loads_is_not_back(threadis: Start) -> None:
    first = threadis("--instances", "2", "--save", "3600 1")
    with first.client() as client:
        fill(client)
        client.save()
        dump = first.folder / "instance-1" / "dump.rdb"
        content = dump.read_bytes()
        dump.write_bytes(content[:100] + bytes([content[100] ^ 255]) + content[101:])
        os.kill(first.instance_pids()[1], signal.SIGKILL)
        until(lambda: "instance 1 died (exit status 1): dir: " in first.log(), "it dies")
        assert f"{dump} is damaged (" in first.log()
        assert "restore it from a backup" in first.log()
        assert "is back" not in first.log()
        dump.write_bytes(content)
        until(lambda: "instance 1 is back" in first.log(), "it is back")
        until(lambda: all(answers(client, key) for key in KEYS), "all keys are there")


@pytest.mark.parametrize("first", ["supervisor", "proxy", "instances"])
def test_told_to_everybody_at_once_it_ends_well(threadis: Start, first: str) -> None:
    """As systemd does it: every process gets the signal, in any order."""
    running = threadis("--instances", "2", "--appendonly", "yes")
    with running.client() as client:
        fill(client)
    supervisor, proxy, instances = running.process.pid, running.proxy_pid(), running.instance_pids()
    order = [supervisor, proxy, *instances]
    if first != "supervisor":
        order = (
            [proxy, *instances, supervisor] if first == "proxy" else [*instances, proxy, supervisor]
        )
    for pid in order:
        os.kill(pid, signal.SIGTERM)
    assert running.process.wait(30) == 0, running.log()
    again = threadis("--appendonly", "yes", folder=running.folder)
    with again.client() as client:
        assert all(answers(client, key) for key in KEYS)


def test_vanished_data_is_refused(threadis: Start) -> None:
    first = threadis("--instances", "2", "--appendonly", "yes")
    assert first.stop() == 0
    (first.folder / "instance-0" / "appendonlydir" / "appendonly.aof.manifest").unlink()
    second = threadis("--appendonly", "yes", folder=first.folder, wait=False)
    assert second.process.wait(STOP_LIMIT) == 1
    assert "existed when this instance was stopped and is missing; put it back" in second.log()
