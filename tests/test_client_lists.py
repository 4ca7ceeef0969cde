"""What it costs to ask for a few of many clients: nothing that grows with the others."""

import contextlib
from collections.abc import Callable

import pytest

from conftest import Threadis
from raw import Raw, command, status
from threadis.server import Server

CLIENTS = 400
MEGABYTES = 40  # 400 descriptions of 400 clients take 150

LINES = [
    ("CLIENT", "TRACKING", "ON"),
    ("CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", "{self}"),
    ("CLIENT", "LIST", "ID", "{self}"),
    ("CLIENT", "KILL", "ID", "999999999"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_many_that_ask_for_one_of_many(
    threadis: Callable[..., Threadis], stock_server: Server, line: tuple[str, ...]
) -> None:
    running = threadis("--instances", "2", "--workers", "2", "--server", stock_server.path)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(CLIENTS)]
        ids = [int(client.ask("CLIENT", "ID")[1:]) for client in clients]
        before = status(running.proxy_pid(), "VmHWM")
        for client, number in zip(clients, ids, strict=True):
            client.send(command(*(word.format(self=number) for word in line)))
        for client, number in zip(clients, ids, strict=True):
            reply = client.reply()
            if line[1] == "LIST":
                assert b"id=%d " % number in reply and reply.count(b" name=") == 1
            else:
                assert reply == (b":0\r\n" if line[1] == "KILL" else b"+OK\r\n")
        assert status(running.proxy_pid(), "VmHWM") - before < MEGABYTES * 1024
