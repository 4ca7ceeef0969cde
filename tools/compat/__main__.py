"""Runs a test suite of Redis or Valkey on the stock server and on thREaDIS, and renders the page.

    python -m tools.compat SUITE [--server PATH] [--untag] [--unit NAME ...]

The suite is run by its own runner, unit by unit; what it prints is read. That one test fails should
not decide about others: every unit finds a fresh server; after a test that fails, the next one
finds a fresh connection and the configuration of before; a unit in which one hangs is run again
without it.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from threadis.bench.processes import held_port
from threadis.supervisor import server
from tools.compat import page
from tools.compat.results import Results, Unit
from tools.servers import is_free, running

INSTANCES = 4
UNIT_LIMIT = 600  # seconds
OPTIONS = [
    word
    for name in ("debug-command", "protected-configs", "module-command")
    for word in (f"--enable-{name}", "yes")
]
# The runner takes a free port just BELOW one of these, which nobody else takes as they come.
BASE_PORTS = range(12_000, 28_000, 64)
BELOW = 32
HANGS = 5  # of one unit, before the rest of it is given up
# Appended to the definition of ``test``: what a test that fails leaves behind is undone.
UNDOING = """
rename test test_by_itself
proc test {name code args} {
    set failed $::num_failed
    set before [apart config get *]
    uplevel 1 [list test_by_itself $name $code {*}$args]
    if {$::num_failed != $failed} {
        catch { reconnect }
        set after [apart config get *]
        dict for {name value} $before {
            if {[dict exists $after $name] && [dict get $after $name] ne $value} {
                apart config set $name $value
            }
        }
    }
}
proc apart args {
    set connect [expr {[llength [info commands valkey]] ? "valkey" : "redis"}]
    set reply {}
    catch {
        set client [$connect [srv 0 host] [srv 0 port] 0 $::tls]
        catch { set reply [$client {*}$args] }
        $client close
    }
    return $reply
}
"""
OUTCOME = re.compile(r"^\[(ok|err|exception)\]: (.*?)(?: \(\d+ ms\)| in tests/\S+)?$")
TAG = re.compile(r"([A-Za-z0-9_*:\\\]})-])\{t\}")

IN_PROGRESS = re.compile(r"=> \(IN PROGRESS\) (.*)")
UNRELEASED = "255.255.255"  # the version of a checkout between two releases

Outcomes = dict[str, str]  # by test: "" if it passes, else what was printed


def units(suite: Path) -> list[str]:
    """The units of a suite."""
    done = subprocess.run(
        ["tclsh", "tests/test_helper.tcl", "--list-tests"],
        cwd=suite, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.split()


def run_unit(suite: Path, unit: str, command: list[str], folder: Path) -> Outcomes:
    """The outcomes of one unit; tests of the same name are numbered."""
    outcomes: Outcomes = {}
    hung: list[str] = []
    while len(hung) <= HANGS:
        with fresh(command, folder) as port:
            printed = run(suite, unit, port, hung)
        outcomes = {**read(printed), **outcomes}
        if not (found := IN_PROGRESS.search(printed)):
            break
        hung.append(found[1])
        outcomes[found[1]] = "hangs"
    return outcomes


def run(suite: Path, unit: str, port: int, without: list[str]) -> str:
    """What the suite's runner prints of a unit."""
    command = [
        "tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port), "--single",
        unit, "--durable", "--tags", "-needs:repl", "--clients", "1", "--timeout", "120",
        "--baseport", str(base_port()),
    ]  # fmt: skip
    for name in without:
        command += ["--skiptest", name]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=suite, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(UNIT_LIMIT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        return re.sub(r"\x1b\[[0-9;]*m", "", output.read())


def base_port() -> int:
    """A base port below which no other runner listens."""
    candidates = random.sample(BASE_PORTS, len(BASE_PORTS))
    return next(base for base in candidates if is_free(base - BELOW))


@contextlib.contextmanager
def fresh(command: list[str], folder: Path) -> Iterator[int]:
    """A server without data; its port."""
    with tempfile.TemporaryDirectory(dir=folder) as data, held_port() as port:
        rest = ["--port", str(port), "--dir", data, "--save", "", *OPTIONS]
        with running([*command, *rest], port):
            yield port


def read(printed: str) -> Outcomes:
    """The outcomes in what the suite's runner prints."""
    found: Outcomes = {}
    seen: Counter[str] = Counter()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    for at, line in enumerate(lines):
        match = OUTCOME.match(line)
        if match:
            seen[match[2]] += 1
            name = match[2] if seen[match[2]] == 1 else f"{match[2]} ({seen[match[2]]})"
            error = "" if match[1] == "ok" else " ".join(lines[at + 1 : at + 3])[:300]
            found[name] = error if match[1] == "ok" else error or "failed"
    return found


def prepared(suite: Path, folder: Path, *, untag: bool) -> Path:
    """A copy of the suite as it is run; on request its keys have no common hash tags."""
    copy = folder / "suite"
    shutil.copytree(suite, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    with (copy / "tests" / "support" / "test.tcl").open("a") as file:
        file.write(UNDOING)
    for path in (copy / "tests" / "unit").rglob("*.tcl") if untag else ():
        path.write_text(TAG.sub(r"\1~t~", path.read_text(errors="surrogateescape")),
                        errors="surrogateescape")  # fmt: skip
    return copy


def version(suite: Path) -> str:
    """What the suite calls itself; between two releases, by its folder (a commit, say)."""
    header = suite / "src" / "version.h"
    text = header.read_text() if header.exists() else ""
    if match := re.search(r'(REDIS|VALKEY)_VERSION "([^"]+)"', text):
        number = suite.resolve().name if match[2] == UNRELEASED else match[2]
        return f"{match[1].capitalize()} {number}"
    return suite.name


def main(
    suite: Annotated[Path, typer.Argument(help="a checkout of redis/redis or valkey-io/valkey")],
    path: Annotated[str | None, typer.Option("--server", help="the stock server")] = None,
    untag: Annotated[bool, typer.Option(help="take the hash tags out of the keys")] = False,
    unit: Annotated[list[str] | None, typer.Option(help="only these units")] = None,
) -> None:
    """Run a suite on the stock server and on thREaDIS over four of it; write results and page."""
    stock = server.find(path)
    results = Results(version(suite), f"{stock.kind} {stock.version_text}", untag)
    name = re.sub(r"[^a-z0-9.]+", "-", results.suite.lower()) + ("-untagged" if untag else "")
    out = page.ROOT / "benchmarks" / "results" / f"compat-{name}.json"
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        suite = prepared(suite, Path(folder), untag=untag)
        wanted = unit or units(suite)
        task = progress.add_task("", total=2 * len(wanted))
        found: list[dict[str, Outcomes]] = []
        for number, whose in enumerate(("stock", "threadis")):
            serve = [sys.executable, "-m", "threadis", "serve", "--server", stock.path]
            serve += ["--instances", str(INSTANCES)]
            outcomes = {}
            for one in wanted:
                progress.update(task, description=f"{whose}: {one}", advance=1)
                command = serve if number else [stock.path]
                outcomes[one] = run_unit(suite, one, command, Path(folder))
            found.append(outcomes)
    for one in wanted:
        good = [test for test, error in found[0][one].items() if not error]
        failed = {test: found[1][one].get(test, "not run") for test in good}
        results.units[one] = Unit(
            len(good), {test: error for test, error in failed.items() if error}
        )
    results.save(out)
    page.main([])
    typer.echo(f"{results.passed} of {results.total} pass; {out}, {page.PAGE}")


if __name__ == "__main__":
    typer.run(main)
