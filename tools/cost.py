"""Counts the instructions that the proxy spends on a command, with Valgrind's callgrind.

    python -m tools.cost [--server PATH] [--against FILE]

Time is noisy where others use the machine, too; instructions hardly are. The real program runs,
with one worker and two instances, and only its proxy under callgrind. One client sends a pipeline,
reads all its replies, and sends the next: so a turn has the same work each time. What is counted is
the proxy's user code, worker and coordinator apart.
"""

import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import hiredis
import redis
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from threadis import _core
from threadis.bench.processes import held_port
from threadis.coordinator.instances.packed import pack

DEPTH: Final = 16  # of a pipeline
PIPELINES: Final = 100  # of a round
ROUNDS: Final = 5
START_LIMIT: Final = 120  # seconds: under Valgrind all is some fifty times slower
RESULTS: Final = Path(__file__).parent.parent / "benchmarks" / "results" / "cost.json"

Words = list[str]
SCRIPT: Final = "return redis.call('GET', KEYS[1])"
# Keys of both instances, if there are two.
KEYS: Final = ["a", "b", "c", "d"]
# Each case is what one of a pipeline's members sends.
CASES: Final[dict[str, list[Words]]] = {
    "GET": [["GET", "a"]],
    "SET": [["SET", "a", "x" * 16]],
    "MGET": [["MGET", *KEYS]],
    "MSET": [["MSET", *(word for key in KEYS for word in (key, "x"))]],
    "EXEC": [["MULTI"], ["GET", "a"], ["SET", "a", "x"], ["EXEC"]],
    "EXEC over instances": [["MULTI"], *(["SET", key, "x"] for key in KEYS), ["EXEC"]],
    "EVALSHA": [["EVALSHA", "", "1", "a"]],
    "LPUSH, BLPOP": [["LPUSH", "l", "x"], ["BLPOP", "l", "0"]],
}


def main(
    server_path: Annotated[
        str | None, typer.Option("--server", help="The stock server (default: the one we bring).")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Earlier results to compare with (default: those kept).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the results.")] = False,
) -> None:
    """Count the instructions of commands."""
    for tool in ("valgrind", "callgrind_control"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is needed; on Debian: apt install valgrind")
    if _core.build_profile() != "release":
        raise SystemExit("this is no release build: its figures mean nothing; make optimised")
    before = against or RESULTS
    known = json.loads(before.read_text()) if before.exists() else {}
    found = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        held_port() as port,
        running(server_path, port, Path(scratch)) as proxy,
    ):
        for case in track(CASES, "counting"):
            found[case] = proxy.count(CASES[case])
    Console().print(shown(found, known))
    if keep:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def shown(found: dict[str, dict[str, float]], known: dict[str, dict[str, float]]) -> Table:
    """A table; what it was before, if that is known."""
    table = Table("command", "worker", "before", "change", "coordinator", "before", box=None)
    for case, now in found.items():
        was = known.get(case)
        change = f"{now['worker'] / was['worker'] - 1:+.1%}" if was else ""
        worker, worker_was, rest, rest_was = (
            f"{one[part]:,.0f}" if one else "" for part in now for one in (now, was)
        )
        table.add_row(case, worker, worker_was, change, rest, rest_was)
    return table


@contextlib.contextmanager
def running(server_path: str | None, port: int, scratch: Path) -> Iterator["Proxy"]:
    """The program, its proxy under callgrind."""
    wrapper = scratch / "python"
    wrapper.write_text(
        "#!/bin/sh\n"
        f"exec valgrind --tool=callgrind --instr-atstart=no --separate-threads=yes --quiet "
        f'--callgrind-out-file={scratch}/out {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o700)
    start = (
        "import sys; from threadis.supervisor import proxy_process; from threadis.cli import main; "
        f"proxy_process.SERVING_LIMIT = {START_LIMIT}; sys.executable = {str(wrapper)!r}; main()"
    )
    options = ["--port", str(port), "--dir", str(scratch / "data")]
    options += ["--instances", "2", "--workers", "1", "--pin", "no", "--save", ""]
    if server_path:
        options += ["--server", server_path]
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", start, "serve", *options], stderr=log)
    try:
        yield Proxy(port, scratch, process.pid)
    finally:
        process.terminate()
        process.wait()


class Proxy:
    """The proxy that is watched."""

    def __init__(self, port: int, scratch: Path, supervisor: int) -> None:
        self._scratch, self._dumps = scratch, 0
        end = time.monotonic() + START_LIMIT
        client = redis.Redis(port=port, socket_timeout=START_LIMIT)
        while True:
            with contextlib.suppress(redis.RedisError):
                self._sha: str = client.script_load(SCRIPT)
                break
            if time.monotonic() > end:
                raise SystemExit(f"it does not start: {(scratch / 'log').read_text()}")
            time.sleep(0.2)
        self._socket = socket.create_connection(("127.0.0.1", port), START_LIMIT)
        self._reader = hiredis.Reader()
        self._pid = child_under_valgrind(supervisor)

    def count(self, commands: list[Words]) -> dict[str, float]:
        """Instructions of one member of a pipeline: the median of some rounds."""
        commands = [[self._sha if word == "" else word for word in words] for words in commands]
        self._run(commands)  # lanes are open, and scripts known, from here on
        rounds = [self._round(commands) for _ in range(ROUNDS)]
        return {
            part: round(statistics.median(one[part] for one in rounds), 1) for part in rounds[0]
        }

    def _round(self, commands: list[Words]) -> dict[str, float]:
        self._control("--instr=on")
        self._run(commands)
        self._dumps += 1
        self._control("--dump")
        self._control("--instr=off")
        parts = {"worker": 0, "coordinator": 0}
        for path in self._scratch.glob(f"out.{self._dumps}-*"):
            text = path.read_text()
            (total,) = re.findall(r"^totals: (\d+)", text, re.M)
            (thread,) = re.findall(r"^thread: (\d+)", text, re.M)
            parts["coordinator" if thread == "1" else "worker"] += int(total)
        return {part: total / (PIPELINES * DEPTH) for part, total in parts.items()}

    def _run(self, commands: list[Words]) -> None:
        member = b"".join(pack([word.encode() for word in words]) for words in commands)
        for _ in range(PIPELINES):
            self._socket.sendall(member * DEPTH)
            for _ in range(len(commands) * DEPTH):
                while (reply := self._reader.gets()) is False:
                    self._reader.feed(self._socket.recv(1 << 16))
                if isinstance(reply, hiredis.ReplyError):
                    raise SystemExit(f"{commands[0][0]}: {reply}")

    def _control(self, option: str) -> None:
        subprocess.run(
            ["callgrind_control", option, str(self._pid)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def child_under_valgrind(supervisor: int) -> int:
    """The process of the proxy."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, rest = path.read_text().split(" ", 1)
            fields = rest.rsplit(")", 1)[1].split()
            words = (path.parent / "cmdline").read_bytes()
            if int(fields[1]) == supervisor and b"threadis.proxy" in words:
                return int(number)
    raise SystemExit("the proxy is not found")


if __name__ == "__main__":
    typer.run(main)
