"""Administration where it is more than what a stock server would say: races, and nobody to ask."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from conftest import Threadis
from faults import stopped
from raw import Raw, command, keys_of
from threadis import own_names
from waiting import until

Start = Callable[..., Threadis]


def test_slowlog_entries_are_numbered_once_whoever_looks_at_the_same_time(threadis: Start) -> None:
    running = threadis("--instances", "4", "--save", "")
    with running.client() as client:
        client.config_set("slowlog-log-slower-than", 0)
        for number in range(50):
            client.set(f"k:{number}", "v")
        client.config_set("slowlog-log-slower-than", 1_000_000)

        def look(_: int) -> list[tuple[int, bytes]]:
            with running.client() as one:
                return [(entry["id"], entry["command"]) for entry in one.slowlog_get(-1)]

        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(look, range(16)))
        ids = [number for number, _ in seen[0]]
        assert len(ids) >= 50
        assert len(set(ids)) == len(ids)
        assert all(one == seen[0] for one in seen)


def test_a_log_of_everything_holds_up_nobody(threadis: Start) -> None:
    pings = 200_000
    running = threadis("--instances", "2", "--workers", "2", "--save", "")
    with running.client() as other, Raw(("127.0.0.1", running.port)) as busy:
        other.config_set("slowlog-log-slower-than", 0)
        answer = len(b"+PONG\r\n")
        for _ in range(pings // 1000):
            busy.send(command("PING") * 1000)
            busy.exactly(1000 * answer)
            other.ping()
        # Within the client's five seconds: it does not wait for an entry of each
        assert other.info("threadis")["threadis_slowlog_dropped"] > 0
        assert other.slowlog_len() == 128
        assert other.config_set("slowlog-log-slower-than", 10_000)


def test_a_script_on_one_instance_does_not_hold_up_info(threadis: Start) -> None:
    running = threadis("--instances", "2", "--save", "")
    with running.client() as client, Raw(("127.0.0.1", running.port)) as busy:
        for number in range(32):
            client.set(f"k:{number}", "v")
        assert client.info()["db0"]["keys"] == 32
        client.config_set("lua-time-limit", 3000)  # until then it does not even say BUSY
        busy.send(command("EVAL", "while true do end", 1, "k:1"))

        def late() -> list[int]:
            info = client.info()
            assert info["db0"]["keys"] == 32  # as it was, while it is late
            return [n for n in range(2) if info[f"instance{n}"]["late_ms"] > 0]

        until(lambda: len(late()) == 1, "one instance is shown as it last was")
        until(lambda: killed(client), "the script ends")
        assert busy.reply().startswith(b"-")
        until(lambda: not late(), "both answer again")


def test_the_keys_of_a_stopped_instance_are_shown_as_they_last_were(threadis: Start) -> None:
    running = threadis("--instances", "2", "--save", "")
    with running.client() as client:
        for number in range(32):
            client.set(f"k:{number}", "v")
        assert client.info("keyspace")["db0"]["keys"] == 32
        with stopped(running.instance_pids()[1]):
            until(lambda: client.info("threadis")["instance1"]["state"] == "stopped", "seen")
            assert client.info("keyspace")["db0"]["keys"] == 32
            assert client.info("threadis")["instance1"]["late_ms"] > 0
        until(lambda: client.info("threadis")["instance1"]["state"] == "ready", "it goes on")
        assert client.info("keyspace")["db0"]["keys"] == 32


def killed(client: "redis.Redis") -> bool:
    """Whether a script could be killed."""
    try:
        return bool(client.script_kill())
    except redis.RedisError:
        return False


def test_with_no_instance_to_ask_the_client_is_told_to_try_again(threadis: Start) -> None:
    running = threadis("--instances", "2", "--save", "")
    pids = running.instance_pids()
    with running.client() as client:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: running.log().count("does not answer") >= 2, "both are seen stopped")
            for line in (
                "SLOWLOG GET", "SLOWLOG LEN", "WAIT x 0", "CONFIG GET port", "INFO",
                "SCRIPT EXISTS x", "EVAL return 0", "CONFIG SET tls-port 1",
            ):  # fmt: skip
                with pytest.raises(redis.exceptions.TryAgainError):
                    client.execute_command(*line.split(" "))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


def test_shutdown_ends_everything_in_order(threadis: Start, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    running = threadis("--instances", "2", "--save", "", folder=folder)
    with running.client() as client, running.client() as other:
        for number in range(20):
            client.set(f"k:{number}", number)
        for wrong in ("SHUTDOWN NOPE", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW"):
            with pytest.raises(redis.exceptions.ResponseError, match="syntax error"):
                client.execute_command(*wrong.split())
        with pytest.raises(redis.exceptions.ResponseError, match="No shutdown in progress"):
            client.execute_command("SHUTDOWN", "ABORT")
        assert other.ping()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.execute_command("SHUTDOWN", "SAVE", "NOW")
    assert running.process.wait(30) == 0
    assert not running.family()
    again = threadis("--instances", "2", "--save", "3600 1", folder=folder)
    with again.client() as client:
        assert client.dbsize() == 20
        client.delete("k:1")
        with pytest.raises(redis.exceptions.ConnectionError):
            client.execute_command("SHUTDOWN", "NOSAVE")
    assert again.process.wait(30) == 0
    with threadis("--instances", "2", folder=folder).client() as client:
        assert client.dbsize() == 20


def test_modules_and_protected_directives_in_the_servers_words(threadis: Start) -> None:
    running = threadis("--instances", "2", "--save", "")
    with running.client() as client:
        for line in ("MODULE LOAD /x", "MODULE UNLOAD x", "MODULE LOADEX /x"):
            with pytest.raises(redis.exceptions.ResponseError, match="MODULE command not allowed"):
                client.execute_command(*line.split())
        for name in ("dir", "dbfilename"):
            with pytest.raises(redis.exceptions.ResponseError, match="can't set protected config"):
                client.config_set(name, "x")
    flags = ("--enable-module-command", "local", "--enable-protected-configs", "local")
    with threadis("--instances", "2", "--save", "", *flags).client() as client:
        with pytest.raises(redis.exceptions.ResponseError, match="--set loadmodule="):
            client.execute_command("MODULE", "LOAD", "/x")
        with pytest.raises(redis.exceptions.ResponseError, match="set it at start"):
            client.config_set("dir", "x")


def test_memory_stats_are_sums(threadis: Start) -> None:
    with threadis("--instances", "3", "--save", "").client() as client:
        for number in range(300):
            client.set(f"k:{number}", "v" * 100)
        stats = client.memory_stats()
        assert stats["keys.count"] == 300
        assert stats["total.allocated"] > 300 * 100
        assert 0 < float(stats["dataset.percentage"]) <= 100
        assert [name for name in stats if name.startswith("db.")] == ["db.0"]


def test_an_instance_is_shown_as_ready_once_commands_reach_it(threadis: Start) -> None:
    """One that was taken for stopped is made ready first: nothing old may overtake what is new."""
    running = threadis("--instances", "2", "--save", "")

    def state(client: redis.Redis) -> str:
        found: Any = client.info("threadis")
        return str(found["instance1"]["state"])

    def is_reached(client: redis.Redis) -> bool:
        try:
            client.set(next(keys_of(1, 2)), "x")
        except redis.exceptions.TryAgainError:
            return False
        return True

    with running.client() as client:
        found: Any = client.info("threadis")
        with Raw(found["instance1"]["socket"]) as there:
            assert there.ask("CLIENT", "SETNAME", own_names.LANE + b"old") == b"+OK\r\n"
            with stopped(running.instance_pids()[1]):
                until(lambda: state(client) == "stopped", "it is missed")
            until(lambda: state(client) != "stopped", "it is awake")
            assert state(client) == "starting"
            assert not is_reached(client)
        until(lambda: state(client) == "ready", "it is ready")
        assert is_reached(client)
