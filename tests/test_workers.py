"""Workers share the clients: few carry them while these can, more when they cannot."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import redis

from conftest import Threadis
from raw import Raw
from threadis.bench.load import Load, LoadResult
from waiting import until

LOUD = 6  # clients whose commands cost only the workers
PINGS = 2000  # commands that one of them sends at once
PONGS = b"+PONG\r\n" * PINGS


def clients_by_worker(observer: "redis.Redis") -> list[int]:
    info = observer.info("threadis")
    return [info[f"worker{index}"]["clients"] for index in range(info["threadis_workers"])]


@contextlib.contextmanager
def noise(running: Threadis) -> Iterator[None]:
    """More than one worker can carry, until the block ends."""
    is_over = threading.Event()

    def ping(client: Raw) -> None:
        while not is_over.is_set():
            client.send(b"PING\r\n" * PINGS)
            assert client.exactly(len(PONGS)) == PONGS

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(LOUD)]
        threads = [threading.Thread(target=ping, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def test_clients_spread_under_load_and_gather_again(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "3", "--save", "")
    observer = running.client(single_connection_client=True)
    load = Load(address=f"127.0.0.1:{running.port}", connections=30, private_keys=True, seconds=3)
    load.preload()
    quiet = [running.client(single_connection_client=True) for _ in range(20)]
    assert all(client.ping() for client in quiet)
    until(lambda: clients_by_worker(observer) == [21, 0, 0], "one worker has all")
    results: list[LoadResult] = []
    loading = threading.Thread(target=lambda: results.append(load.run()))
    with noise(running):
        loading.start()
        until(lambda: sorted(clients_by_worker(observer))[1] > 0, "another one has some", 30)
        loading.join()
    assert results[0].errors == 0, results[0].examples
    until(lambda: sorted(clients_by_worker(observer)) == [0, 0, 21], "one has all again", 30)
    assert all(client.ping() for client in quiet)


def test_a_client_that_moves_keeps_its_session(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "2", "--save", "")
    observer = running.client(single_connection_client=True)
    with Raw(("127.0.0.1", running.port)) as client:
        assert client.ask("SELECT", 3) == b"+OK\r\n"
        assert client.ask("CLIENT", "SETNAME", "mover") == b"+OK\r\n"
        identity = client.ask("CLIENT", "ID")
        assert client.ask("MULTI") == b"+OK\r\n"
        assert client.ask("SET", "moved", 1) == b"+QUEUED\r\n"

        def place() -> tuple[int, ...]:
            moved = observer.info("threadis")["threadis_clients_moved"]
            return (moved, *clients_by_worker(observer))

        with noise(running):
            # It is not among the quietest, who go: it says a little, all the while.
            def is_spread() -> bool:
                assert client.ask("SET", "moved", 1) == b"+QUEUED\r\n"
                return place()[0] > 0

            until(is_spread, "some have moved", 30)
        until(lambda: sorted(place()[1:]) == [0, 2], "all are together", 30)
        reply = client.ask("EXEC")
        assert reply.startswith(b"*") and reply.endswith(b"+OK\r\n")
        assert client.ask("CLIENT", "ID") == identity
        assert client.ask("CLIENT", "GETNAME") == b"$5\r\nmover\r\n"
        assert client.ask("GET", "moved") == b"$1\r\n1\r\n"
        names = [one["name"] for one in observer.client_list()]
        assert names.count("mover") == 1
