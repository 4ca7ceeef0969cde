"""Scripts that workers run by themselves, where thREaDIS is the test's own."""

from collections.abc import Callable
from pathlib import Path

import psutil

from conftest import Threadis
from known_scripts import STRAY, learn, raw, run_here
from raw import Raw, command, owner
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4

Start = Callable[..., Threadis]


def test_what_a_placement_rule_keeps_together_is_no_stranger(threadis: Start) -> None:
    running = threadis("--instances", str(INSTANCES), "--save", "", "--placement", "bull:{*}:*")
    with running.client(single_connection_client=True) as client:
        script = "redis.call('SET', KEYS[1] .. ':more', ARGV[1] or 0) return 1"
        sha = learn(client, script, b"bull:mail:1")
        before = run_here(client)
        for queue in ("mail", "sms", "a*b", "x"):
            assert client.evalsha(sha, 1, f"bull:{queue}:7", 5) == 1
            assert client.get(f"bull:{queue}:7:more") == b"5"
        assert run_here(client) == before + 4
        assert client.evalsha(sha, 1, "alone", 7) == 1  # no rule, no tag
        assert client.get("alone:more") == b"7"
        assert run_here(client) == before + 4
        sha = str(client.script_load(STRAY))
        for other in ("mail:3", "sms:3", "mail:4"):
            assert client.evalsha(sha, 1, f"bull:for:{other}", f"bull:{other}") == 1
            assert client.get(f"bull:{other}") == b"1"
        assert run_here(client) == before + 4


def test_who_leaves_meanwhile_and_an_instance_that_dies(
    threadis: Start, stock_server: ServerBinary, tmp_path: Path
) -> None:
    running = threadis(
        "--server", stock_server.path, "--instances", "2", "--workers", "1", "--save", ""
    )
    wait = (
        "local t = redis.call('TIME')[1] + (ARGV[1] or 0)"
        " while redis.call('TIME')[1] + 0 < t do end return redis.call('INCR', KEYS[1])"
    )
    with running.client() as client, raw(running) as one, raw(running) as two:
        sha = learn(client, wait, b"k")
        instance = psutil.Process(running.instance_pids()[owner(b"k", 2)])

        def send(client: Raw, seconds: int) -> None:
            before = instance.cpu_times().user
            client.send(command("EVALSHA", sha, 1, "k", seconds))
            until(lambda: instance.cpu_times().user > before + 0.1, "the script runs")

        send(one, 2)
        one.reset()
        assert two.ask("EVALSHA", sha, 1, "k") == b":4\r\n"  # and the first has run
        send(two, 30)
        instance.kill()
        assert b"may or may not have run" in two.reply()
        until(lambda: two.ask("GET", "k") == b"$-1\r\n", "it is back", seconds=30)
        before = run_here(client)
        assert two.ask("EVALSHA", sha, 1, "k") == b":1\r\n"
        assert run_here(client) == before + 1
