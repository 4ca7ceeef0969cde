"""The suites of ``threadis bench`` as commands."""

from typing import Annotated

import typer

from threadis.bench import figures, scale, scale_table, suites, table
from threadis.bench.cgroup import why_none
from threadis.bench.cores import read_split
from threadis.bench.errors import BenchError
from threadis.bench.figures import SATURATED
from threadis.bench.idle import (
    most_connections,
)
from threadis.bench.load import Load
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
    both_setups,
    cpus,
    numbers,
    one_line_errors,
    with_jemalloc,
    words,
    writable,
)
from threadis.bench.outcome import measure_and_show, measured, measured_idle
from threadis.bench.report import Report
from threadis.bench.suite import measure
from threadis.supervisor.server import find


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
    """Measure the goals of thREaDIS: reached or not. About ten minutes.

    One CPU runs all servers, another one the load. For the goals of many cores see ``scale``.
    """  # fmt: skip
    with one_line_errors():
        if reason := why_none():
            typer.echo(f"without the saturated cases: {reason}", err=True)
        setups = both_setups(redis, valkey, cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = figures.plans(
            setups, load, lambda name: only in name and (not reason or SATURATED not in name)
        )
        if not plans:
            raise BenchError(f"--only {only}: no case is named so")
        path = writable(json)
        measure_and_show(lambda: measure("figures", plans, repeats, path), show_figures)


def show_figures(report: Report) -> None:
    """Print the results."""
    console = table.console()
    table.render_machine(report.machine, console)
    figures.render(figures.reached(report), console)
    table.render_errors(report, console)


def scale_command(
    server: ServerFlag = None,
    cores: Annotated[
        str,
        typer.Option(
            metavar="N,...", help="How many cores thREaDIS gets.", rich_help_panel=SERVERS
        ),
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
        str,
        typer.Option(metavar="CPUS", help="CPUs of the load generator.", rich_help_panel=LOAD),
    ] = "1",
    connections: Annotated[
        str, typer.Option(metavar="N,...", help="Clients.", rich_help_panel=LOAD)
    ] = "200",
    pipeline: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="Commands that a client sends before it reads.",
            rich_help_panel=LOAD,
        ),
    ] = "1,16",
    mix: Annotated[
        str, typer.Option(metavar="MIX,...", help="As for run.", rich_help_panel=LOAD)
    ] = "get",
    seconds: SecondsFlag = 8.0,
    repeats: RepeatsFlag = 7,
    json: JsonFlag = None,
) -> None:
    """Measure throughput on many cores. Compared with one bare server on one; half an hour.

    If there are too few cores it simulates slow ones, which needs root.
    """  # fmt: skip
    with one_line_errors():
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
        path = writable(json)
        measure_and_show(
            lambda: scale.measure(setup, load, options, path),
            lambda report: scale_table.render(report, table.console()),
        )


def multikey_command(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 1.0,
    repeats: RepeatsFlag = 7,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """Measure many keys, transactions, scripts, queues. Over four instances; also PUBLISH.

    A quarter of an hour.
    """  # fmt: skip
    with one_line_errors():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = suites.only(suites.multikey(setup, load), only)
        measured("multikey", plans, repeats, json)


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
    """Measure the added latency. Of a lone client, and at a tenth and a half of the load.

    Ten minutes.
    """  # fmt: skip
    with one_line_errors():
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        setups = both_setups(redis, valkey, cpus("--server-cpu", server_cpu))
        plans = suites.only(suites.latency(setups, load), only)
        measured("latency", plans, repeats, json)


def clients_command(
    server: ServerFlag = None,
    server_cpu: ServerCpuFlag = "0",
    load_cpu: LoadCpuFlag = "1",
    seconds: SecondsFlag = 2.0,
    repeats: RepeatsFlag = 7,
    only: OnlyFlag = "",
    json: JsonFlag = None,
) -> None:
    """Measure ten thousand clients. All active; a hundred connecting at once; idle memory.

    Ten minutes.
    """  # fmt: skip
    with one_line_errors():
        setup = with_jemalloc(find(server), cpus("--server-cpu", server_cpu))
        load = Load(seconds=seconds, cpus=cpus("--load-cpu", load_cpu))
        plans = suites.only(suites.clients(setup, load), only)
        report = measured("clients", plans, repeats, json)
        report.idle.extend(measured_idle(setup, most_connections()))
        if json is not None:
            report.save(json)
