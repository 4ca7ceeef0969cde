"""What an idle client costs: memory of each part, with and without many connections."""

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator, Sequence

import msgspec
import psutil
import redis
from rich.console import Console

from threadis.bench.errors import BenchError
from threadis.bench.sockets import connected_to
from threadis.bench.targets import Target

SPARE_FILES = 200  # beside the connections: the servers' own
MOST = 100_000
MAXCLIENTS = 10_000  # of a server that was told nothing
PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"
TIMEOUT = 30.0  # seconds for all to be answered
PER_SOURCE = 20_000  # connections from one address: there are 28,000 ports
BATCH = 200  # connections opened before their PINGs are answered: below any listen backlog


class IdleCost(msgspec.Struct, frozen=True):
    """Resident memory of one part of a target."""

    target: str
    part: str
    connections: int
    rss_before: int  # bytes
    rss_after: int

    @property
    def per_connection(self) -> float:
        """Bytes."""
        return (self.rss_after - self.rss_before) / self.connections


def allow_connections(count: int) -> None:
    """Raise the limit of open files; servers that start later inherit it."""
    wanted = count + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        limit = f"only {hard} open files are allowed; raise ulimit -Hn"
        raise BenchError(f"{count} connections: {limit}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return as many as the limit of open files and the memory of a small machine allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if hard == resource.RLIM_INFINITY else min(MOST, hard - 2 * SPARE_FILES)


def make_room(target: Target, count: int) -> None:
    """Let so many clients connect; the default is 10,000 in all."""
    if count + SPARE_FILES > MAXCLIENTS:
        with target.client() as client, contextlib.suppress(redis.ResponseError):
            client.config_set("maxclients", count + SPARE_FILES)


def measure_idle(target: Target, count: int) -> list[IdleCost]:
    """Open ``count`` connections, send one PING on each, and measure the memory."""
    make_room(target, count)
    before = _rss(target)
    with _connections(target.address, count):
        after = _rss(target)
    return [IdleCost(target.name, part, count, before[part], after[part]) for part in before]


def render_idle(costs: Sequence[IdleCost], console: Console) -> None:
    """Print the memory of each part."""
    for cost in costs:
        before, after = cost.rss_before / 1e6, cost.rss_after / 1e6
        console.print(
            f"{cost.target} {cost.part}: {before:.1f} MB, with {cost.connections} idle connections "
            f"{after:.1f} MB: {cost.per_connection:.0f} bytes each"
        )


def _rss(target: Target) -> dict[str, int]:
    return {
        part: sum(psutil.Process(pid).memory_info().rss for pid in pids)
        for part, pids in target.parts.items()
    }


@contextlib.contextmanager
def _connections(address: str, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for start in range(0, count, BATCH):
            batch = []
            for _ in range(min(BATCH, count - start)):
                client = stack.enter_context(connected_to(address, start // PER_SOURCE))
                client.sendall(PING)
                batch.append(client)
            _await_pongs(batch)
        yield


def _await_pongs(clients: Sequence[socket.socket]) -> None:
    deadline = time.monotonic() + TIMEOUT
    with selectors.DefaultSelector() as selector:
        for one in clients:
            selector.register(one, selectors.EVENT_READ, one)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BenchError(f"{len(selector.get_map())} connections were not answered")
            for key, _ in ready:
                client: socket.socket = key.data
                if (answer := client.recv(len(PONG))) != PONG:
                    raise BenchError(f"the reply to PING was {answer!r}")
                selector.unregister(client)
