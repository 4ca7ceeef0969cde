"""What can be measured: a bare stock server, thREaDIS (with options), twemproxy, or anything that
is running.
"""

import contextlib
import ctypes.util
import functools
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from threadis.bench import cpu
from threadis.bench.errors import BenchError
from threadis.bench.processes import Child, free_port, running, scratch

PORT = re.compile(r"(?:127\.0\.0\.1|localhost):(\d+)|\bport[ :=]+(\d+)")
PROXY_MODULE = "threadis.proxy"  # in the command line of the proxy process
JEMALLOC = "jemalloc"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How the servers of one benchmark are started; the same for all of them."""

    server: str  # the stock server's binary
    cpus: list[int] = []  # that all server processes share; empty: no confinement
    instances: int = 2
    workers: int = 1
    preload_jemalloc: bool = False

    def environment(self) -> dict[str, str]:
        """What is added to the environment of the servers."""
        if not self.preload_jemalloc:
            return {}
        library = ctypes.util.find_library(JEMALLOC)
        if library is None:
            raise BenchError("--preload-jemalloc: no libjemalloc here; apt install libjemalloc2")
        return {"LD_PRELOAD": library}


class Target(msgspec.Struct, frozen=True):
    """A server to measure."""

    name: str
    address: str
    version: str
    allocator: str
    parts: dict[str, list[int]]  # of its processes; empty: not ours to measure
    password: str | None = None

    def client(self) -> redis.Redis:
        """A connection for the odd command."""
        return _client(self.address, self.password)


@contextlib.contextmanager
def bare(setup: Setup) -> Iterator[Target]:
    """A stock server on loopback, without persistence."""
    with scratch() as directory:
        port = free_port()
        listen = ["--port", str(port), "--bind", "127.0.0.1"]
        with _server(setup, directory, "server", listen, f"127.0.0.1:{port}") as child:
            yield _describe("bare", f"127.0.0.1:{port}", {"server": [child.pid]})


# thREaDIS with options that cost or save something, by the name of the target.
OPTIONS = {
    "threadis": [],
    "shipped": ["--allocator", "auto"],
    "split": ["--multikey", "split"],
    "ordered": ["--ordered-pipelines", "yes"],
    "placed": ["--placement", "{user}:*", "--placement", "key{*}"],
}


@contextlib.contextmanager
def threadis(setup: Setup, name: str = "threadis") -> Iterator[Target]:
    """A thREaDIS of this installation, on loopback, without persistence."""
    command = [sys.executable, "-m", "threadis", "serve", "--port", "0", "--save", ""]
    command += ["--appendonly", "no", "--server", setup.server]
    command += ["--instances", str(setup.instances), "--workers", str(setup.workers)]
    # The bare server's allocator, so that only the proxy makes the difference
    command += ["--allocator", "none", *OPTIONS[name]]
    with scratch() as directory:
        command += ["--dir", str(directory / "data")]
        environment = setup.environment()
        with running("threadis", command, directory, setup.cpus, environment) as child:
            port = child.wait_until("threadis serve", lambda: find_port(child.output()))
            address = f"127.0.0.1:{port}"
            child.wait_until("threadis serve", lambda: _answers(address))
            yield _describe(name, address, threadis_parts(child.pid))


@contextlib.contextmanager
def twemproxy(setup: Setup) -> Iterator[Target]:
    """Debian's twemproxy before stock servers on Unix sockets."""
    binary = shutil.which("nutcracker") or shutil.which("nutcracker", path="/usr/sbin")
    if binary is None:
        raise BenchError("no nutcracker here; apt install nutcracker")
    with scratch() as directory, contextlib.ExitStack() as stack:
        instances = []
        for index in range(setup.instances):
            path = directory / f"{index}.sock"
            listen = ["--port", "0", "--unixsocket", str(path)]
            name = f"instance-{index}"
            instances.append(
                stack.enter_context(_server(setup, directory, name, listen, str(path)))
            )
        port = free_port()
        servers = [
            f"   - {directory / f'{index}.sock'}:1 {index}" for index in range(len(instances))
        ]
        lines = ["bench:", f"  listen: 127.0.0.1:{port}", "  redis: true", "  hash: crc16"]
        lines += ["  distribution: modula", "  preconnect: true", "  servers:", *servers]
        config = directory / "nutcracker.yml"
        config.write_text("\n".join(lines) + "\n")
        command: list[str | Path] = [
            binary,
            "-c",
            config,
            "-s",
            str(free_port()),
            "-a",
            "127.0.0.1",
        ]
        command += ["-o", directory / "nutcracker.messages"]
        child = stack.enter_context(running("nutcracker", command, directory, setup.cpus))
        child.wait_until("nutcracker", lambda: _serves_get(port))
        pids = [instance.pid for instance in instances]
        parts = {"proxy": [child.pid], "instances": pids}
        yield _describe(
            "twemproxy", f"127.0.0.1:{port}", parts, info_from=str(directory / "0.sock")
        )


@contextlib.contextmanager
def running_elsewhere(address: str, pid: int | None, password: str | None) -> Iterator[Target]:
    """A server that somebody else started; its CPU is known if its process is."""
    parts = {} if pid is None else {"server": cpu.tree(pid)}
    yield _describe(address, address, parts, password=password)


def find_port(printed: str) -> int | None:
    """The port that ``threadis serve`` says it listens on; the one place that knows the format."""
    ports = (int(one or other) for one, other in PORT.findall(printed))
    return next((port for port in ports if port), None)


def threadis_parts(supervisor: int) -> dict[str, list[int]]:
    """The processes of a running thREaDIS."""
    parts: dict[str, list[int]] = {"proxy": [], "instances": [], "supervisor": [supervisor]}
    for child in psutil.Process(supervisor).children(recursive=True):
        is_proxy = PROXY_MODULE in child.cmdline()
        parts["proxy" if is_proxy else "instances"].append(child.pid)
    return parts


@contextlib.contextmanager
def _server(
    setup: Setup, directory: Path, name: str, listen: list[str], address: str
) -> Iterator[Child]:
    own = directory / name
    own.mkdir()
    command = [setup.server, *listen, "--save", "", "--appendonly", "no", "--dir", str(own)]
    with running(name, command, directory, setup.cpus, setup.environment()) as child:
        child.wait_until(setup.server, lambda: _answers(address))
        yield child


def _describe(
    name: str,
    address: str,
    parts: dict[str, list[int]],
    password: str | None = None,
    info_from: str | None = None,
) -> Target:
    """Ask a server what it is; twemproxy refuses INFO, so its instance is asked."""
    info: dict[str, object] = {}
    with contextlib.suppress(redis.RedisError), _client(info_from or address, password) as client:
        info = client.info()
    kind = str(info.get("server_name", "redis"))
    version = info.get("valkey_version") or info.get("redis_version") or "unknown version"
    allocator = str(info.get("mem_allocator", "unknown"))
    servers = parts.get("instances") or parts.get("server") or []
    if not allocator.startswith(JEMALLOC) and any(map(_has_jemalloc, servers)):
        allocator += ", replaced by a preloaded jemalloc"
    return Target(name, address, f"{kind} {version}", allocator, parts, password)


def _has_jemalloc(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return f"lib{JEMALLOC}" in Path(f"/proc/{pid}/maps").read_text()
    return False


def _client(address: str, password: str | None) -> redis.Redis:
    once = Retry(NoBackoff(), 0)  # whoever waits for a server asks again without a back-off
    if "/" in address:
        return redis.Redis(unix_socket_path=address, password=password, retry=once)
    host, _, port = address.rpartition(":")
    return redis.Redis(host, int(port), password=password, retry=once)


def _answers(address: str) -> bool:
    with contextlib.suppress(redis.RedisError), _client(address, None) as client:
        return bool(client.ping())
    return False


def _serves_get(port: int) -> bool:
    """Of twemproxy, which knows no PING and hangs up on what client libraries say first."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as client,
    ):
        client.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\nready\r\n")
        return client.recv(64) == b"$-1\r\n"
    return False


STARTERS: dict[str, Callable[[Setup], contextlib.AbstractContextManager[Target]]] = {
    "bare": bare,
    **{name: functools.partial(threadis, name=name) for name in OPTIONS},
    "twemproxy": twemproxy,
}
