"""The commands `run`, `quick`, `full` and `idle` of ``threadis bench``."""

import os
import socket
from typing import Annotated

import typer
from msgspec.structs import replace

from threadis.bench.errors import BenchError
from threadis.bench.load import ZIPF_EXPONENT, Load
from threadis.bench.measure import BASELINE, Case, Elsewhere, depth_cases
from threadis.bench.options import (
    LOAD,
    SERVERS,
    JsonFlag,
    LoadCpuFlag,
    RedisFlag,
    RepeatsFlag,
    SecondsFlag,
    ServerCpuFlag,
    ServerFlag,
    ValkeyFlag,
    WithFlag,
    both_setups,
    cpus,
    numbers,
    one_line_errors,
    others,
    with_jemalloc,
    words,
)
from threadis.bench.outcome import measured, measured_idle
from threadis.bench.peers import installed
from threadis.bench.suite import Plan
from threadis.bench.targets import Setup
from threadis.supervisor.server import find

CONNECT_LIMIT = 5.0  # seconds


def run(
    server: ServerFlag = None,
    instances: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Instances of thREaDIS.", rich_help_panel=SERVERS),
    ] = 2,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Workers of thREaDIS.", rich_help_panel=SERVERS),
    ] = 1,
    server_cpu: ServerCpuFlag = "0",
    with_: WithFlag = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            rich_help_panel=SERVERS,
            help="Measure a running server instead of thREaDIS. Writes keys key:0...!",
        ),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(
            metavar="PID", help="Process of --against, for its CPU.", rich_help_panel=SERVERS
        ),
    ] = None,
    password_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=SERVERS,
            help="Environment variable that holds the password of --against.",
        ),
    ] = None,
    preload_jemalloc: Annotated[
        bool,
        typer.Option(
            "--preload-jemalloc",
            rich_help_panel=SERVERS,
            help="Preload jemalloc into all servers (LD_PRELOAD).",
        ),
    ] = False,
    connections: Annotated[
        int, typer.Option(min=1, metavar="N", help="Clients.", rich_help_panel=LOAD)
    ] = 50,
    pipeline: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="Commands that a client sends before it reads the replies.",
            rich_help_panel=LOAD,
        ),
    ] = "1,16,64",
    mix: Annotated[
        str,
        typer.Option(
            metavar="MIX,...",
            help="Commands: get, set, mixed:RATIO of SET, mget:KEYS, mset:KEYS.",
            rich_help_panel=LOAD,
        ),
    ] = "get,set",
    value_size: Annotated[
        int,
        typer.Option(min=16, metavar="BYTES", help="Length of values.", rich_help_panel=LOAD),
    ] = 16,
    keys: Annotated[
        int, typer.Option(min=1, metavar="N", help="Different keys.", rich_help_panel=LOAD)
    ] = 100_000,
    zipf: Annotated[
        bool,
        typer.Option(
            "--zipf",
            help=f"Some keys far more often than others (Zipf, exponent {ZIPF_EXPONENT}).",
            rich_help_panel=LOAD,
        ),
    ] = False,
    private_keys: Annotated[
        bool,
        typer.Option(
            "--private-keys",
            rich_help_panel=LOAD,
            help="Each client has its own keys, and checks that it reads what it wrote last.",
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Commands a second in all, at random times; default: as fast as possible.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    seconds: SecondsFlag = 2.0,
    repeats: RepeatsFlag = 5,
    load_cpu: LoadCpuFlag = "1",
    json: JsonFlag = None,
) -> None:
    """Measure servers and loads of your choice; one table.

    Every reply is checked: a value says which client wrote it, when, and for which key. Wrong
    replies end in exit status 1.
    """  # fmt: skip
    with one_line_errors():
        names, programs = others(with_)
        setup = Setup(
            server=find(server).path,
            cpus=cpus("--server-cpu", server_cpu),
            instances=instances,
            workers=workers,
            preload_jemalloc=preload_jemalloc,
            programs=programs,
        )
        load = Load(
            connections=connections,
            value_size=value_size,
            key_count=keys,
            zipf=ZIPF_EXPONENT if zipf else None,
            rate=rate,
            seconds=seconds,
            cpus=cpus("--load-cpu", load_cpu),
            private_keys=private_keys,
        )
        cases = [
            Case(name=f"{one} P={depth}", load=replace(load, mix=one, pipeline=depth))
            for depth in numbers("--pipeline", pipeline)
            for one in words(mix)
        ]
        elsewhere = None
        if against is not None:
            elsewhere = Elsewhere(checked_address(against), pid, password_of(password_env))
        targets = [BASELINE, *(["threadis"] if against is None else []), *names]
        plan = Plan(name="servers", setup=setup, targets=targets, cases=cases, elsewhere=elsewhere)
        measured("run", [plan], repeats, json)


def checked_address(text: str) -> str:
    """Return the address of a server that answers."""
    host, colon, port = text.rpartition(":")
    if "/" not in text and not (host and colon and port.isdigit()):
        raise BenchError(f"--against {text}: write HOST:PORT, or the path of a Unix socket")
    try:
        if "/" in text:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(text)
        else:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_LIMIT).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise BenchError(f"--against {text}: no server answers there: {why}") from None
    return text


def password_of(variable: str | None) -> str | None:
    """Return the password in an environment variable."""
    if variable is not None and variable not in os.environ:
        raise BenchError(f"--password-env {variable}: there is no such environment variable")
    return os.environ[variable] if variable else None


def quick(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 0.5,
    repeats: RepeatsFlag = 3,
    json: JsonFlag = None,
) -> None:
    """Compare GET and SET with the bare server. Half a minute, at depths of 1, 16 and 64."""
    with one_line_errors():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plan = Plan(
            name="quick", setup=setup, targets=[BASELINE, "threadis"], cases=depth_cases(load)
        )
        measured("quick", [plan], repeats, json)


def full(
    redis: RedisFlag = None,
    valkey: ValkeyFlag = None,
    with_: WithFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 1.0,
    repeats: RepeatsFlag = 7,
    json: JsonFlag = None,
) -> None:
    """Compare with all alternatives. For Redis and for Valkey; half an hour.

    The alternatives: the server's own I/O threads, a cluster with cluster clients, and, if
    they are on PATH or named by --with, twemproxy, Envoy and Predixy.
    """  # fmt: skip
    with one_line_errors():
        names, programs = others(with_)
        targets = list(dict.fromkeys([BASELINE, "threadis", *installed(programs), *names]))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        setups = both_setups(redis, valkey, cpus("--server-cpu", server_cpu))
        plans = [
            Plan(
                name=name,
                setup=replace(setup, programs=programs),
                targets=targets,
                cases=depth_cases(load),
            )
            for name, setup in setups.items()
        ]
        measured("full", plans, repeats, json)


def idle(
    count: Annotated[int, typer.Argument(min=1, metavar="COUNT", help="Connections.")],
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
) -> None:
    """Measure the memory of so many idle connections."""
    with one_line_errors():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        measured_idle(setup, count)
