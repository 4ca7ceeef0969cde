"""Clients that connect, send one PING and disconnect: the cost of a connection."""

import contextlib
import time
from collections.abc import Callable

from threadis.bench.load import Load, LoadResult, summed_up
from threadis.bench.sockets import connected_to, receive_exactly

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"


def connect(load: Load, connected: Callable[[], None]) -> LoadResult:
    """``load.connections`` at once, again and again; latency is until all were answered."""
    connected()
    begin, cpu = time.monotonic(), time.thread_time()
    end = begin + load.warmup + load.seconds
    latencies, now, total, bursts = [], begin, 0, 0
    while now < end:
        bursts += 1
        with contextlib.ExitStack() as stack:
            opened = (connected_to(load.address, bursts) for _ in range(load.connections))
            clients = [stack.enter_context(client) for client in opened]
            for client in clients:
                client.sendall(PING)
            for client in clients:
                receive_exactly(client, PONG)
        before, now = now, time.monotonic()
        total += len(clients)
        if before >= begin + load.warmup:
            latencies += [(now - before)] * len(clients)
    return summed_up(latencies, total, now - begin, time.thread_time() - cpu)
