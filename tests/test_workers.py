"""Workers share the clients fairly, and each runs where it was planned."""

from collections.abc import Callable

from conftest import Threadis
from waiting import until


def clients_by_worker(running: Threadis) -> list[int]:
    with running.client() as client:
        info = client.info("threadis")
    return [info[f"worker{index}"]["clients"] for index in range(info["threadis_workers"])]


def test_connections_are_balanced_over_workers(threadis: Callable[..., Threadis]) -> None:
    running = threadis("--instances", "2", "--workers", "3", "--save", "")
    clients = [running.client(single_connection_client=True) for _ in range(30)]
    assert all(client.ping() for client in clients)
    # The client that asks is one more, somewhere.
    until(lambda: sum(clients_by_worker(running)) == 31, "every worker has published its count")
    counts = clients_by_worker(running)
    assert max(counts) - min(counts) <= 1, counts
    for client in clients[:20]:
        client.close()
    until(lambda: sum(clients_by_worker(running)) == 11, "those who left are not counted")
    late = [running.client(single_connection_client=True) for _ in range(19)]
    assert all(client.ping() for client in late)
    until(lambda: sum(clients_by_worker(running)) == 30, "late comers are counted")
    counts = clients_by_worker(running)
    assert max(counts) - min(counts) <= 1, counts
