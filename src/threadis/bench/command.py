"""The command ``threadis bench``: arguments in, one benchmark, figures out."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from threadis.bench import figures, scale, suites, table
from threadis.bench.cgroup import why_none
from threadis.bench.cores import read_split
from threadis.bench.errors import BenchError
from threadis.bench.figures import SATURATED
from threadis.bench.idle import allow_connections, measure_idle, render_idle
from threadis.bench.load import ZIPF_EXPONENT, Load
from threadis.bench.measure import BASELINE, Case, Elsewhere, depth_cases, started
from threadis.bench.options import (
    LOAD,
    SERVERS,
    JsonFlag,
    LoadCpuFlag,
    OnlyFlag,
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
    others,
    told,
    with_jemalloc,
    words,
    writable,
)
from threadis.bench.peers import installed
from threadis.bench.report import Report
from threadis.bench.suite import Plan, measure
from threadis.bench.targets import Setup
from threadis.server import find

app = typer.Typer(
    no_args_is_help=True,
    help="Measure thREaDIS beside bare stock servers of the same binary, alternating, in one run.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    server: ServerFlag = None,
    instances: Annotated[int, typer.Option(min=1, rich_help_panel=SERVERS)] = 2,
    workers: Annotated[int, typer.Option(min=1, rich_help_panel=SERVERS)] = 1,
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
        typer.Option(help="Process of --against, for its CPU.", rich_help_panel=SERVERS),
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
            help="Give all servers jemalloc by LD_PRELOAD.",
        ),
    ] = False,
    connections: Annotated[int, typer.Option(min=1, rich_help_panel=LOAD)] = 50,
    pipeline: Annotated[str, typer.Option(help="Depths.", rich_help_panel=LOAD)] = "1,16,64",
    mix: Annotated[
        str,
        typer.Option(
            help="get, set, mixed:RATIO of SET, mget:KEYS, mset:KEYS.", rich_help_panel=LOAD
        ),
    ] = "get,set",
    value_size: Annotated[int, typer.Option(min=16, help="Bytes.", rich_help_panel=LOAD)] = 16,
    keys: Annotated[int, typer.Option(min=1, rich_help_panel=LOAD)] = 100_000,
    zipf: Annotated[
        bool, typer.Option("--zipf", help=f"Exponent {ZIPF_EXPONENT}.", rich_help_panel=LOAD)
    ] = False,
    private_keys: Annotated[
        bool,
        typer.Option(
            "--private-keys",
            rich_help_panel=LOAD,
            help="Each client has its own keys and must read what it wrote last.",
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Commands a second in all, at random moments; default: as fast as answered.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    seconds: SecondsFlag = 2.0,
    repeats: RepeatsFlag = 5,
    load_cpu: LoadCpuFlag = "1",
    json: JsonFlag = None,
) -> None:
    """One table, of servers and loads that you name.

    Every reply is checked: a value says which client wrote it, when, and for which key. Wrong
    replies end in exit status 1.
    """  # fmt: skip
    with told():
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
            password = os.environ[password_env] if password_env else None
            elsewhere = Elsewhere(against, pid, password)
        targets = [BASELINE, *(["threadis"] if against is None else []), *names]
        plan = Plan(name="servers", setup=setup, targets=targets, cases=cases, elsewhere=elsewhere)
        _measure("run", [plan], repeats, json)


@app.command()
def quick(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 0.5,
    repeats: RepeatsFlag = 3,
    json: JsonFlag = None,
) -> None:
    """thREaDIS beside the bare server: GET and SET at depths of 1, 16 and 64. Half a minute."""
    with told():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plan = Plan(
            name="quick", setup=setup, targets=[BASELINE, "threadis"], cases=depth_cases(load)
        )
        _measure("quick", [plan], repeats, json)


@app.command()
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
    """The same for Redis and for Valkey, beside every other way that is installed. Half an hour.

    Those are: the server's own I/O threads, a cluster with clients that know it, and, where they
    are on PATH or named by --with, twemproxy, Envoy and Predixy.
    """  # fmt: skip
    with told():
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
        _measure("full", plans, repeats, json)


@app.command("figures")
def figures_command(
    redis: RedisFlag = None,
    valkey: ValkeyFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 1.0,
    repeats: RepeatsFlag = 9,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """The figures that thREaDIS is judged by: measured, and met or not. About ten minutes.

    One CPU carries all servers, another one the load. Those of many cores: ``scale``.
    """  # fmt: skip
    with told():
        if reason := why_none():
            typer.echo(f"without the saturated cases: {reason}", err=True)
        setups = both_setups(redis, valkey, cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = figures.plans(
            setups, load, lambda name: only in name and (not reason or SATURATED not in name)
        )
        if not plans:
            raise BenchError(f"--only {only}: no case is named so")
        report = measure("figures", plans, repeats, writable(json))
    console = table.console()
    table.render_machine(report.machine, console)
    figures.render(figures.reached(report), console)
    table.render_errors(report, console)
    _fail_on_errors(report)


@app.command("scale")
def scale_command(
    server: ServerFlag = None,
    cores: Annotated[
        str, typer.Option(help="How many cores thREaDIS gets.", rich_help_panel=SERVERS)
    ] = "1,2,4,8,12",
    split: Annotated[
        str,
        typer.Option(
            metavar="W:N,...",
            help="Workers and instances; default: the best of what is worth trying.",
            rich_help_panel=SERVERS,
        ),
    ] = "",
    real: Annotated[
        str,
        typer.Option(
            metavar="CPUS",
            help="Use these CPUs; default: slow cores, CPU quotas of 6.25 % of --server-cpu.",
            rich_help_panel=SERVERS,
        ),
    ] = "",
    server_cpu: ServerCpuFlag = "0",
    load_cpu: Annotated[
        str, typer.Option(help="CPUs of the load generator.", rich_help_panel=LOAD)
    ] = "1",
    connections: Annotated[str, typer.Option(rich_help_panel=LOAD)] = "200",
    pipeline: Annotated[str, typer.Option(help="Depths.", rich_help_panel=LOAD)] = "1,16",
    mix: Annotated[str, typer.Option(rich_help_panel=LOAD)] = "get",
    seconds: SecondsFlag = 8.0,
    repeats: RepeatsFlag = 7,
    json: JsonFlag = None,
) -> None:
    """Throughput on K cores, beside one bare server on one core. About half an hour.

    Where there are too few cores it makes slow ones, which needs root.
    """  # fmt: skip
    with told():
        on = cpus("--real", real)
        options = scale.Options(
            cores=numbers("--cores", cores),
            cases=[
                scale.ScaleCase(one, depth, count)
                for count in numbers("--connections", connections)
                for depth in numbers("--pipeline", pipeline)
                for one in words(mix)
            ],
            splits=[read_split(word) for word in words(split)],
            repeats=repeats,
            real=on,
        )
        setup = with_jemalloc(find(server), on or cpus("--server-cpu", server_cpu))
        load_cpus = cpus("--load-cpu", load_cpu)
        load = Load(seconds=seconds, cpus=load_cpus, threads=max(1, len(load_cpus)), warmup=1.0)
        scale.check(options)
        report = scale.measure(setup, load, options, writable(json))
        table.render_scale(report, table.console())
        _fail_on_errors(report)


@app.command("multikey")
def multikey_command(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 1.0,
    repeats: RepeatsFlag = 7,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """Commands on many keys, transactions, scripts, queues, publishing, over four instances.

    A quarter of an hour.
    """  # fmt: skip
    with told():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = suites.only(suites.multikey(setup, load), only)
        _measure("multikey", plans, repeats, json)


@app.command("latency")
def latency_command(
    redis: RedisFlag = None,
    valkey: ValkeyFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 2.0,
    repeats: RepeatsFlag = 9,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """What is added to the latency of a lone client, and at a tenth and a half of the load.

    Ten minutes.
    """  # fmt: skip
    with told():
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        setups = both_setups(redis, valkey, cpus("--server-cpu", server_cpu))
        plans = suites.only(suites.latency(setups, load), only)
        _measure("latency", plans, repeats, json)


@app.command("clients")
def clients_command(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 2.0,
    repeats: RepeatsFlag = 7,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """Ten thousand clients that all send, and a hundred that connect at once. Ten minutes."""
    with told():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = suites.only(suites.clients(setup, load), only)
        _measure("clients", plans, repeats, json)


@app.command()
def idle(
    count: Annotated[int, typer.Argument(min=1, help="Connections.")],
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
) -> None:
    """Memory with this many idle connections."""
    with told():
        setup = Setup(server=find(server).path, cpus=cpus("--server-cpu", server_cpu))
        allow_connections(count)
        with started([BASELINE, "threadis"], setup) as targets:
            costs = [cost for target in targets for cost in measure_idle(target, count)]
    render_idle(costs, table.console())


def _measure(suite: str, plans: Sequence[Plan], repeats: int, json: Path | None) -> None:
    """Measure and print everything; wrong replies end in exit status 1."""
    report = measure(suite, plans, repeats, writable(json))
    table.render(report, table.console())
    _fail_on_errors(report)


def _fail_on_errors(report: Report | scale.ScaleReport) -> None:
    if report.errors:
        raise typer.Exit(1)
