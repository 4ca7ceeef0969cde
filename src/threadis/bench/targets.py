"""Targets: a bare stock server, thREaDIS (with options), or any running server."""

import contextlib
import ctypes.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from threadis.bench import cpu
from threadis.bench.errors import BenchError
from threadis.bench.processes import Child, held_port, running, scratch

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
    programs: dict[str, str] = {}  # other proxies by name, where they are not on PATH

    def environment(self) -> dict[str, str]:
        """Return the additional environment of the servers."""
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
        """Return a connection for occasional commands."""
        return _client(self.address, self.password)


@contextlib.contextmanager
def bare(setup: Setup, name: str = "bare", more: Sequence[str] = ()) -> Iterator[Target]:
    """Start a stock server on loopback, without persistence."""
    with scratch() as directory, held_port() as port:
        listen = ["--port", str(port), "--bind", "127.0.0.1", *more]
        with stock_server(setup, directory, "server", listen, f"127.0.0.1:{port}") as child:
            yield describe(name, f"127.0.0.1:{port}", {"server": [child.pid]})


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
    """Start thREaDIS of this installation on loopback, without persistence."""
    command = [sys.executable, "-P", "-m", "threadis", "serve", "--port", "auto", "--save", ""]
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
            child.wait_until("threadis serve", lambda: answers(address))
            yield describe(name, address, threadis_parts(child.pid))


@contextlib.contextmanager
def running_elsewhere(address: str, pid: int | None, password: str | None) -> Iterator[Target]:
    """A server that is running already; its CPU time is known if its process is."""
    parts = {} if pid is None else {"server": cpu.tree(pid)}
    yield describe(address, address, parts, password=password)


def find_port(printed: str) -> int | None:
    """Parse the port that ``threadis serve`` prints; the only place that knows the format."""
    ports = (int(one or other) for one, other in PORT.findall(printed))
    return next((port for port in ports if port), None)


def threadis_parts(supervisor: int) -> dict[str, list[int]]:
    """Return the processes of a running thREaDIS."""
    parts: dict[str, list[int]] = {"proxy": [], "instances": [], "supervisor": [supervisor]}
    for child in psutil.Process(supervisor).children(recursive=True):
        is_proxy = PROXY_MODULE in child.cmdline()
        parts["proxy" if is_proxy else "instances"].append(child.pid)
    return parts


@contextlib.contextmanager
def stock_server(
    setup: Setup, directory: Path, name: str, listen: list[str], address: str
) -> Iterator[Child]:
    """Return the command for a server without persistence at ``address``."""
    own = directory / name
    own.mkdir()
    command = [setup.server, *listen, "--save", "", "--appendonly", "no", "--dir", str(own)]
    command += ["--protected-mode", "no"]  # for it only 127.0.0.1 is local, not 127.0.0.2
    with running(name, command, directory, setup.cpus, setup.environment()) as child:
        child.wait_until(setup.server, lambda: answers(address))
        yield child


def describe(
    name: str,
    address: str,
    parts: dict[str, list[int]],
    password: str | None = None,
    info_from: str | None = None,
) -> Target:
    """Ask a server what it is; or ``info_from``, an instance of a proxy that refuses INFO."""
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
    once = Retry(NoBackoff(), 0)  # callers that wait for a server repeat without a back-off
    if "/" in address:
        return redis.Redis(unix_socket_path=address, password=password, retry=once)
    host, _, port = address.rpartition(":")
    return redis.Redis(host, int(port), password=password, retry=once)


def answers(address: str) -> bool:
    """Whether a server answers and has loaded its data."""
    with contextlib.suppress(redis.RedisError), _client(address, None) as client:
        return bool(client.ping())
    return False
