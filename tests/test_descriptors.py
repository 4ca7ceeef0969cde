"""Open files that the system does not grant: lanes have theirs before idle clients do."""

import re
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from conftest import Threadis
from raw import Raw, open_files
from waiting import until

TOO_MANY = b"-ERR max number of clients reached\r\n"


@pytest.mark.parametrize("files", [200, 1024])
def test_idle_clients_take_none_that_lanes_need(
    threadis: Callable[..., Threadis], files: int
) -> None:
    running = threadis("--instances", "3", "--workers", "2", "--save", "", files=files)
    found = re.search(rf"is {files}. maxclients has been reduced to (\d+)", running.log())
    assert found
    address, most = ("127.0.0.1", running.port), int(found[1])
    with ExitStack() as stack:
        clients = [stack.enter_context(Raw(address)) for _ in range(most)]
        assert [one.ask("PING") for one in clients] == [b"+PONG\r\n"] * most
        for _ in range(20):
            with Raw(address) as newcomer:
                assert newcomer.rest() == TOO_MANY
        for number, client in enumerate(clients[:40]):  # in more states than lanes have room for
            assert client.ask("SELECT", number % 16) == b"+OK\r\n"
            for key in "abcdef":
                assert client.ask("SET", key, number) == b"+OK\r\n"
            assert client.ask("MSET", "a", 1, "b", 2, "c", 3, "d", 4) == b"+OK\r\n"
            assert client.ask("SUNION", "x", "y", "z") == b"*0\r\n"
        refusal = clients[0].ask("CONFIG", "SET", "maxclients", files)
        assert refusal.endswith(b"specified number of clients, try with %d\r\n" % most)
        assert open_files(running.proxy_pid()) < files
        clients[-1].socket.close()
        until(lambda: clients[0].ask("INFO", "clients").count(b":%d\r" % (most - 1)), "it is gone")
        with Raw(address) as newcomer:
            assert newcomer.ask("PING") == b"+PONG\r\n"


def test_too_few_to_start(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "3", files=64, wait=False)
    assert running.process.wait(20) == 2
    last = running.log().splitlines()[-1]
    found = re.fullmatch(
        r"threadis: the open files that the system grants \(64\) are not enough to start with 3 "
        r"instances and \d+ workers; raise the limit to at least (\d+) \(ulimit -n\)", last,
    )  # fmt: skip
    assert found
    threadis("--instances", "3", files=int(found[1]))
