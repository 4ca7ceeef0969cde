"""Single system calls of the proxy fail, as the kernel never or hardly ever lets them: that costs a
connection, a command or an instance's moment, never the whole, and leaves nothing waiting.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from conftest import Threadis
from waiting import until

Start = Callable[..., Threadis]
KEYS = [f"key:{number}" for number in range(32)]  # enough to lie on every instance
SECONDS = 0.4  # of each fault, under load

FAULTS = [
    "write:error=EINTR:when=1+3",
    "write:error=EIO:when=1+3",
    "read:error=EIO:when=3+9",
    "recvfrom:error=EAGAIN:when=1+4",
    "recvfrom:error=EIO:when=5+9",
    "recvfrom:error=ENOMEM:when=1+3",
    "sendto:error=ENOBUFS:when=1+2",
    "epoll_wait,epoll_pwait,epoll_pwait2:error=EIO:when=2+5",
    "epoll_ctl:error=ENOMEM:when=1+2",
    "accept4:error=EMFILE:when=1+2",
    "socket,connect:error=ENOBUFS:when=1+2",
    "setsockopt,getsockopt:error=ENOMEM:when=1+2",
]


@contextmanager
def failing(pid: int, fault: str) -> Iterator[None]:
    """Let some of a process's system calls fail for a while."""
    calls = ["-e", f"trace={fault.split(':')[0]}", "-e", f"inject={fault}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(pid), *calls],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr
    try:
        until(lambda: traced(pid) or tracer.poll() is not None, "strace is attached")
        if tracer.poll() is not None:
            pytest.skip(f"strace may not trace here: {tracer.stderr.read().decode()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        tracer.stderr.close()


def traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0" not in status


def load(running: Threadis) -> None:
    """What clients do while calls fail; that some of it fails is no wonder."""
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        try:
            with running.client() as client:
                for _ in range(5):
                    number += 1
                    client.set(KEYS[number % len(KEYS)], "v")
                    client.mset(dict.fromkeys(KEYS[:8], "v"))
                    client.eval("return redis.call('GET', KEYS[1])", 1, KEYS[0])
                    client.info("clients")
        except (redis.RedisError, OSError):
            continue


def is_well(running: Threadis) -> bool:
    """Whether every road is open: worker, commit, script, coordinator, a new connection."""
    try:
        with running.client() as client:
            assert client.mset(dict.fromkeys(KEYS, "v")) is True
            assert client.mget(KEYS) == [b"v"] * len(KEYS)
            for key in KEYS:
                assert client.eval("return redis.call('GET', KEYS[1])", 1, key) == b"v"
            client.rename(KEYS[0], "other")
            client.rename("other", KEYS[0])
            return bool(client.info("clients"))
    except (redis.RedisError, OSError):
        return False


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_failed_system_calls_of_the_proxy_pass(threadis: Start) -> None:
    running = threadis("--instances", "2", "--workers", "2", "--save", "")
    assert is_well(running)
    proxy = running.proxy_pid()
    with running.client() as bystander:
        bystander.ping()
        for fault in FAULTS:
            with failing(proxy, fault):
                load(running)
            until(lambda: is_well(running), f"all is well after {fault}")
    assert running.proxy_pids() == [proxy], running.log()
