"""Workers share the clients fairly."""

from collections.abc import Callable

import redis

from conftest import Threadis
from waiting import until


def clients_by_worker(observer: "redis.Redis") -> list[int]:
    info = observer.info("threadis")
    return [info[f"worker{index}"]["clients"] for index in range(info["threadis_workers"])]


def test_connections_are_balanced_over_workers(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "3", "--save", "")
    # One connection asks throughout, and is counted: others come and go around it.
    observer = running.client(single_connection_client=True)

    def settled(total: int) -> list[int]:
        until(lambda: sum(clients_by_worker(observer)) == total, f"{total} clients are counted")
        return clients_by_worker(observer)

    clients = [running.client(single_connection_client=True) for _ in range(30)]
    assert all(client.ping() for client in clients)
    counts = settled(31)
    assert max(counts) - min(counts) <= 1, counts
    for client in clients[:20]:
        client.close()
    settled(11)
    late = [running.client(single_connection_client=True) for _ in range(19)]
    assert all(client.ping() for client in late)
    counts = settled(30)
    assert max(counts) - min(counts) <= 1, counts
