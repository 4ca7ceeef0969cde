"""PUBLISH to many subscribers: a message is sent when all have the one before."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from threadis.bench.errors import BenchError
from threadis.bench.load import Load, LoadResult, summed_up
from threadis.bench.sockets import connected_to, encode, receive_exactly

CHANNEL = b"news"
MESSAGE = b"sixteen bytes ...."[:16]
CONFIRMATION = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
DELIVERY = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$16\r\n" + MESSAGE + b"\r\n"
TIMEOUT = 10.0  # seconds for a message to reach everybody


def publish(load: Load, connected: Callable[[], None]) -> LoadResult:
    """``load.connections`` subscribers; latency is until the last of them has the message."""
    with _subscribers(load) as subscribers, connected_to(load.address) as publisher:
        command = encode(b"PUBLISH", CHANNEL, MESSAGE)
        answer = b":%d\r\n" % len(subscribers)
        with select.epoll() as poll:
            by_number = {one.fileno(): one for one in subscribers}
            for number in by_number:
                poll.register(number, select.EPOLLIN)
            connected()
            begin, cpu = time.monotonic(), time.thread_time()
            end = begin + load.warmup + load.seconds
            latencies, now, total = [], begin, 0
            while now < end:
                publisher.sendall(command)
                _deliver(poll, by_number)
                receive_exactly(publisher, answer)
                before, now = now, time.monotonic()
                total += 1
                if before >= begin + load.warmup:
                    latencies.append(now - before)
    return summed_up(latencies, total, now - begin, time.thread_time() - cpu)


def _deliver(poll: select.epoll, subscribers: dict[int, socket.socket]) -> None:
    """Read until each has exactly one message."""
    missing = {number: len(DELIVERY) for number in subscribers}
    while missing:
        events = poll.poll(TIMEOUT)
        if not events:
            raise BenchError(f"{len(missing)} subscribers wait for a message")
        for number, _ in events:
            got = subscribers[number].recv(len(DELIVERY))
            missing[number] = missing.get(number, 0) - len(got)
            if not got or missing[number] < 0:
                raise BenchError("a subscriber lost its connection, or got more than one message")
            if missing[number] == 0:
                del missing[number]


@contextlib.contextmanager
def _subscribers(load: Load) -> Iterator[Sequence[socket.socket]]:
    command = encode(b"SUBSCRIBE", CHANNEL)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(load.connections):
            client = stack.enter_context(connected_to(load.address))
            client.sendall(command)
            receive_exactly(client, CONFIRMATION)
            clients.append(client)
        yield clients
