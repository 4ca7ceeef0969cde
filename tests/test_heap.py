"""Memory of the proxy that comes back after a burst."""

from collections.abc import Callable
from contextlib import ExitStack

from conftest import Threadis
from raw import Raw, command, resident
from threadis.supervisor.server import ServerBinary
from waiting import until

MB = 1024 * 1024
CLIENTS, COMMANDS, SIZE = 40, 40, 100_000
NEAR = 40 * MB  # buffers that are used again and again stay


def test_what_a_burst_took_is_given_back(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    running = threadis(
        "--server", str(stock_server.path), "--instances", "2", "--workers", "2", "--save", "",
    )  # fmt: skip
    proxy = running.proxy_pid()
    idle = resident(proxy)
    queued = command("MULTI") + command("SET", "key", "x" * SIZE) * COMMANDS
    for _ in range(4):
        with ExitStack() as stack:
            clients = [
                stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(CLIENTS)
            ]
            for client in clients:
                client.send(queued)
            for client in clients:
                assert client.reply() == b"+OK\r\n"
                assert [client.reply() for _ in range(COMMANDS)] == [b"+QUEUED\r\n"] * COMMANDS
            assert resident(proxy) - idle > 100 * MB
        until(lambda: resident(proxy) - idle < NEAR, "the memory comes back")
