"""Servers that a tool starts and ends."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

import redis

START_LIMIT = 30  # seconds


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, from its first answer on."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(redis.RedisError), redis.Redis(port=port) as client:
                client.ping()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
