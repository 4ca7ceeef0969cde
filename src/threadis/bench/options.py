"""Flags that several subcommands share, and how they are parsed."""

import contextlib
import ctypes.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from threadis.bench.errors import BenchError
from threadis.bench.measure import BASELINE
from threadis.bench.peers import PROGRAMS, STARTERS
from threadis.bench.targets import JEMALLOC, Setup
from threadis.errors import ServerError, ThreadisError
from threadis.supervisor.server import ServerBinary, candidates, find, judge

OTHERS = sorted(set(STARTERS) - {BASELINE, "threadis"})

INTERRUPTED = 130  # exit status after Ctrl-C
SERVERS, LOAD, OUTPUT = "Servers", "Load", "Output"

ServerFlag = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="PATH",
        help="Stock server to run; default: as for serve.",
        rich_help_panel=SERVERS,
    ),
]
RedisFlag = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="PATH",
        help="A redis-server; default: the one on PATH.",
        rich_help_panel=SERVERS,
    ),
]
ValkeyFlag = Annotated[
    str | None,
    typer.Option(
        "--valkey",
        metavar="PATH",
        help="A valkey-server; default: the one on PATH, else the bundled one.",
        rich_help_panel=SERVERS,
    ),
]
ServerCpuFlag = Annotated[
    str,
    typer.Option(
        "--server-cpu",
        metavar="CPUS",
        help='CPUs of all server processes, as "0,2"; "" is any.',
        rich_help_panel=SERVERS,
    ),
]
LoadCpuFlag = Annotated[
    str,
    typer.Option(
        "--load-cpu",
        metavar="CPUS",
        help='CPU of the load generator; "" is any.',
        rich_help_panel=LOAD,
    ),
]
SecondsFlag = Annotated[
    float,
    typer.Option(
        "--seconds",
        min=0.05,
        metavar="SECONDS",
        help="Length of each sample.",
        rich_help_panel=LOAD,
    ),
]
RepeatsFlag = Annotated[
    int,
    typer.Option(
        "--repeats",
        min=1,
        metavar="N",
        help="Samples of each case; the median counts.",
        rich_help_panel=LOAD,
    ),
]
JsonFlag = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Save all samples to this file.",
        rich_help_panel=OUTPUT,
    ),
]
WithFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME[=PATH]",
        help=f"Also measure: {', '.join(OTHERS)}; may be repeated.",
        rich_help_panel=SERVERS,
    ),
]
OnlyFlag = Annotated[
    str,
    typer.Option(
        "--only", metavar="TEXT", help="Only cases whose name contains this.", rich_help_panel=LOAD
    ),
]


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of a benchmark into one line and exit status 1."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("threadis bench: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ThreadisError, OSError, ValueError) as error:
        typer.echo(f"threadis bench: {error}", err=True)
        raise typer.Exit(1) from None


def writable(path: Path | None) -> Path | None:
    """Return the path; a wrong one is an error before the measurement, not after."""
    if path is not None:
        try:
            path.touch()
        except OSError as error:
            raise BenchError(f"--json {path}: cannot write it: {error.strerror}") from None
    return path


def words(text: str) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def others(given: list[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the targets of --with, and the paths of those that have one."""
    names, programs = [], {}
    for word in given or []:
        name, _, path = word.partition("=")
        if name not in OTHERS:
            raise BenchError(f"--with {name}: only {', '.join(OTHERS)} are known")
        if path and name not in PROGRAMS:
            raise BenchError(f"--with {word}: only {', '.join(PROGRAMS)} may have a path")
        names.append(name)
        if path:
            programs[name] = path
    return names, programs


def numbers(flag: str, text: str) -> list[int]:
    """Parse numbers separated by commas."""
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise BenchError(f"{flag} {text}: numbers separated by commas, as 1,16") from None


def cpus(flag: str, text: str) -> list[int]:
    """Parse CPUs that this process may use."""
    found = numbers(flag, text)
    usable = sorted(os.sched_getaffinity(0))
    if missing := [cpu for cpu in found if cpu not in usable]:
        raise BenchError(f"{flag} {text}: CPU {missing[0]} is not available, only {usable}")
    return found


def setup_of(kind: str, path: str | None, cpus: list[int]) -> Setup | None:
    """Return how servers of a kind are run; None: there is no such server."""
    if path is None:
        server = next((one for one in map(_judged, candidates()) if one and one.kind == kind), None)
    else:
        server = judge(shutil.which(path) or path)
        if server.kind != kind:
            raise BenchError(f"--{kind} {path}: that is a {server.kind}-server")
    return with_jemalloc(server, cpus) if server else None


def with_jemalloc(server: ServerBinary, cpus: list[int]) -> Setup:
    """Return how a server is run: with its own jemalloc, else by LD_PRELOAD, if possible."""
    has_jemalloc = server.allocator.startswith(JEMALLOC)
    preload = not has_jemalloc and ctypes.util.find_library(JEMALLOC) is not None
    return Setup(server=server.path, cpus=cpus, preload_jemalloc=preload)


def both_setups(redis: str | None, valkey: str | None, cpus: list[int]) -> dict[str, Setup]:
    """Return Redis and Valkey; a missing one is reported, both missing is an error."""
    found = {}
    for kind, path in (("redis", redis), ("valkey", valkey)):
        setup = setup_of(kind, path, cpus)
        if setup is None:
            typer.echo(f"no {kind}-server found: name one with --{kind} PATH", err=True)
        else:
            found[kind] = setup
    if not found:
        find()  # raises, and says where it looked
    return found


def _judged(path: str) -> ServerBinary | None:
    with contextlib.suppress(ServerError):
        return judge(path)
    return None
