"""The command ``threadis bench``: arguments in, one benchmark, figures out."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from threadis.bench.errors import BenchError
from threadis.bench.idle import IdleCost, allow_connections, measure_idle, render_idle
from threadis.bench.load import ZIPF_EXPONENT, Load
from threadis.bench.machine import Machine
from threadis.bench.measure import BASELINE, Elsewhere, Workload, alternate, started
from threadis.bench.report import Report, render, rows
from threadis.bench.targets import STARTERS, Setup
from threadis.errors import ThreadisError
from threadis.server import find

WIDTH = 170  # columns where there is no terminal to ask

OTHERS = sorted(set(STARTERS) - {BASELINE, "threadis"})

SERVERS, LOAD, OUTPUT = "Servers", "Load", "Output"


def bench(
    server: Annotated[
        str | None,
        typer.Option(
            help="Stock server to run; default: found as by serve.", rich_help_panel=SERVERS
        ),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, rich_help_panel=SERVERS)] = 2,
    workers: Annotated[int, typer.Option(min=1, rich_help_panel=SERVERS)] = 1,
    server_cpu: Annotated[
        str,
        typer.Option(
            help='CPUs of all server processes, as "0,2"; "" is any.', rich_help_panel=SERVERS
        ),
    ] = "0",
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help=f"Measure this too: {', '.join(OTHERS)}; may be repeated.",
            rich_help_panel=SERVERS,
        ),
    ] = None,
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
    seconds: Annotated[float, typer.Option(min=0.05, rich_help_panel=LOAD)] = 2.0,
    repeats: Annotated[int, typer.Option(min=1, rich_help_panel=LOAD)] = 5,
    load_cpu: Annotated[
        str, typer.Option(help='CPU of the load generator; "" is any.', rich_help_panel=LOAD)
    ] = "1",
    idle: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=LOAD, help="Instead: memory with this many idle connections."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Save all figures here.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Measure thREaDIS beside a bare stock server of the same binary, alternating, in one run.

    Every reply is checked: a value says which client wrote it, when, and for which key. Wrong
    replies end in exit status 1.
    """  # fmt: skip
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    names = [BASELINE, *(["threadis"] if against is None else []), *(with_ or [])]
    try:
        if json is not None:
            json.touch()  # a wrong path is told before the measurement, not after
        if unknown := [name for name in with_ or [] if name not in OTHERS]:
            raise BenchError(f"--with {unknown[0]}: only {', '.join(OTHERS)} are known")
        workloads = [
            Workload(one, depth)
            for depth in _numbers("--pipeline", pipeline)
            for one in _words(mix)
        ]
        setup = Setup(
            server=find(server).path,
            cpus=_cpus("--server-cpu", server_cpu),
            instances=instances,
            workers=workers,
            preload_jemalloc=preload_jemalloc,
        )
        elsewhere = None
        if against is not None:
            password = os.environ[password_env] if password_env else None
            elsewhere = Elsewhere(against, pid, password)
        load = Load(
            address="",
            connections=connections,
            value_size=value_size,
            key_count=keys,
            zipf=ZIPF_EXPONENT if zipf else None,
            seconds=seconds,
            cpus=_cpus("--load-cpu", load_cpu),
            private_keys=private_keys,
        )
        with _Interruption() as interruption:
            if idle is not None:
                costs = _idle(names, setup, elsewhere, idle)
                render_idle(costs, console)
                if json is not None:
                    json.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=2))
                return
            report = _run(names, setup, elsewhere, workloads, repeats, load, interruption)
    except (ThreadisError, OSError, ValueError) as error:
        typer.echo(f"threadis bench: {error}", err=True)
        raise typer.Exit(1) from None
    render(report, console)
    if json is not None:
        json.write_bytes(report.to_json())
    if report.errors:
        raise typer.Exit(1)


def _run(
    names: list[str],
    setup: Setup,
    elsewhere: Elsewhere | None,
    workloads: list[Workload],
    repeats: int,
    load: Load,
    interruption: "_Interruption",
) -> Report:
    machine = Machine.here()
    with started(names, setup, elsewhere) as targets:
        steps = len(targets) * (1 + repeats * len(workloads))
        with _progress(steps, interruption) as progress:
            samples = list(alternate(targets, workloads, repeats, load, progress))
    return Report(
        machine=machine,
        setup=setup,
        load=load,
        repeats=repeats,
        targets=targets,
        rows=rows(samples),
        samples=samples,
    )


def _idle(
    names: list[str], setup: Setup, elsewhere: Elsewhere | None, count: int
) -> list[IdleCost]:
    allow_connections(count)
    with started(names, setup, elsewhere) as targets:
        return [cost for target in targets for cost in measure_idle(target, count)]


@contextlib.contextmanager
def _progress(steps: int, interruption: "_Interruption") -> Iterator[Callable[[str], None]]:
    """A bar on standard error; each call is the beginning of the next step."""
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
        task = progress.add_task("starting servers", total=steps)
        done = -1

        def step(description: str) -> None:
            nonlocal done
            interruption.check()
            done += 1
            progress.update(task, completed=done, description=description)

        yield step


class _Interruption:
    """Ctrl-C and SIGTERM end a benchmark, with its servers.

    Python drops a KeyboardInterrupt that strikes in a destructor or in a callback of the garbage
    collector, so the signal is also remembered, and looked for before each step.
    """

    def __init__(self) -> None:
        self._caught = False

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._catch) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what Python dropped."""
        if self._caught:
            raise KeyboardInterrupt

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._caught = True
        raise KeyboardInterrupt


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise BenchError(f"{flag} {text}: numbers with commas between, as 1,16") from None


def _cpus(flag: str, text: str) -> list[int]:
    cpus = _numbers(flag, text)
    usable = sorted(os.sched_getaffinity(0))
    if missing := [cpu for cpu in cpus if cpu not in usable]:
        raise BenchError(f"{flag} {text}: CPU {missing[0]} is not ours, only {usable} are")
    return cpus
