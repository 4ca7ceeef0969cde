"""Records of writes over several instances: none stays when nothing is to be done."""

import os
import re
import signal
import threading
from collections.abc import Callable

import redis

from conftest import Threadis
from raw import Raw
from waiting import until


def hidden(client: Raw) -> int:
    """How many keys of ours there are."""
    client.send(b"INFO threadis\r\n")
    found = re.search(rb"threadis_hidden_keys:(\d+)", client.reply())
    assert found
    return int(found[1])


def calls(client: redis.Redis) -> int:
    """How many MSETs have been."""
    return int(client.info("commandstats").get("cmdstat_mset", {"calls": 0})["calls"])


def test_no_record_stays_behind_kills_at_rest(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "2")
    address = ("127.0.0.1", running.port)
    pairs = [word for number in range(8) for word in (f"key:{number}", "x")]
    for index in (0, 1, 0):
        stop = threading.Event()

        def write() -> None:
            with Raw(address) as client:
                while not stop.is_set():  # noqa: B023
                    client.ask("MSET", *pairs)

        writers = [threading.Thread(target=write, daemon=True) for _ in range(6)]
        for writer in writers:
            writer.start()
        with running.client() as client:
            written = calls(client) + 50
            until(lambda: calls(client) > written, "many writes")  # noqa: B023
        os.kill(running.instance_pids()[index], signal.SIGKILL)
        stop.set()
        for writer in writers:
            writer.join()
        with Raw(address) as client:
            until(lambda: client.ask("MGET", "key:0", "key:1", "key:2").startswith(b"*3"), "back")
            until(lambda: hidden(client) == 0, "no record is left", 30)
