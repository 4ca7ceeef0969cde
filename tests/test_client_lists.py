"""What it costs to ask for few or for all of many clients."""

import contextlib
from collections.abc import Callable

import pytest

from conftest import Threadis
from raw import Raw, command, status
from threadis.supervisor.server import ServerBinary

CLIENTS = 400
MEGABYTES = 40  # 400 descriptions of 400 clients take 150
MANY_LINES = 60  # megabytes: 400 lists of 400 clients, looked up for each, take 120

LINES = [
    ("CLIENT", "TRACKING", "ON"),
    ("CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", "{self}"),
    ("CLIENT", "LIST", "ID", "{self}"),
    ("CLIENT", "KILL", "ID", "999999999"),
]


def connected(stack: contextlib.ExitStack, running: Threadis) -> tuple[list[Raw], list[int]]:
    """Many clients, and their ids."""
    clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(CLIENTS)]
    return clients, [int(client.ask("CLIENT", "ID")[1:]) for client in clients]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_many_that_ask_for_one_of_many(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, line: tuple[str, ...]
) -> None:
    running = threadis("--instances", "2", "--workers", "2", "--server", stock_server.path)
    with contextlib.ExitStack() as stack:
        clients, ids = connected(stack, running)
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


def test_many_that_ask_for_all_of_many_share_the_answer(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    """Each sees what was so when it asked: its own command, and who was there."""
    running = threadis("--instances", "2", "--workers", "2", "--server", stock_server.path)
    with contextlib.ExitStack() as stack:
        clients, ids = connected(stack, running)
        before = status(running.proxy_pid(), "VmHWM")
        for number, client in enumerate(clients):
            client.send(command("CLIENT", "SETNAME", f"n{number}") + command("CLIENT", "LIST"))
        for number, client in enumerate(clients):
            assert client.reply() == b"+OK\r\n"
            lines = client.reply().split(b"\n")
            assert sum(b" name=" in line for line in lines) == CLIENTS
            mine = next(line for line in lines if b"id=%d " % ids[number] in line)
            assert b" name=n%d " % number in mine and b" cmd=client|list " in mine
        assert status(running.proxy_pid(), "VmHWM") - before < MANY_LINES * 1024


def test_a_list_shows_what_was_so_before_it_was_asked_for(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    """Also while others ask: their answer may be older."""
    running = threadis("--instances", "2", "--workers", "2", "--server", stock_server.path)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(50)]
        for number in range(200):
            asking, named, *others = clients[number % 50 :] + clients[: number % 50]
            for other in others[:5]:
                other.send(command("CLIENT", "LIST"))
            named.ask("CLIENT", "SETNAME", f"n{number}")
            assert b" name=n%d " % number in asking.ask("CLIENT", "LIST")
            for other in others[:5]:
                other.reply()
